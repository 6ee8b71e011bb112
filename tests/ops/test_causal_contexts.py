"""The contexts of pixels in generation order, by hand on small grids."""

from __future__ import annotations

import pytest
import torch

from imagen_fast.errors import InvalidInput
from imagen_fast.ops import Neighbourhood, Quadrant, Raster
from imagen_fast.ops.contexts import Window


def seen_by(context, grid, pixel):
    """What a query sees, as a picture: rows of the grid, x where it is seen."""
    row = context.window(grid).visible()[pixel[0] * grid[1] + pixel[1]].view(grid)
    return ["".join("x" if seen else "." for seen in line) for line in row.tolist()]


@pytest.mark.parametrize(
    ("context", "picture"),
    [
        (Raster(), ["xxxxx", "xxxxx", "xxx..", "....."]),
        (Quadrant(), ["xxx..", "xxx..", "xxx..", "....."]),
        (Neighbourhood(1), [".....", ".xx..", ".xx..", "....."]),
        (Neighbourhood(1, "raster"), [".....", ".xxx.", ".xx..", "....."]),
        (Neighbourhood(0), [".....", ".....", "..x..", "....."]),
        (Neighbourhood(2), ["xxx..", "xxx..", "xxx..", "....."]),
        (Neighbourhood(2, "raster"), ["xxxxx", "xxxxx", "xxx..", "....."]),
        (Quadrant(prefix=4), ["xxxx.", "xxx..", "xxx..", "....."]),
        (Neighbourhood(1, prefix=7), ["xxxxx", "xxx..", ".xx..", "....."]),
        (Raster(prefix=14), ["xxxxx", "xxxxx", "xxxx.", "....."]),
    ],
    ids=str,
)
def test_what_a_pixel_sees(context, picture):
    assert seen_by(context, (4, 5), (2, 2)) == picture


def test_a_prefix_sees_itself_in_both_directions():
    assert seen_by(Raster(prefix=3), (2, 3), (0, 0)) == ["xxx", "..."]
    assert seen_by(Quadrant(prefix=4), (2, 3), (0, 1)) == ["xxx", "x.."]


@pytest.mark.parametrize("context", [Raster(), Quadrant(), Neighbourhood(1), Neighbourhood(2, "raster")])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (6, 1), (3, 5), (7, 7)])
def test_a_pixel_sees_itself_and_no_later_one(context, grid):
    visible = context.window(grid).visible()
    assert bool(visible.diagonal().all())
    assert not bool(visible.triu(1).any())


def test_raster_is_the_lower_triangle_and_the_widest_neighbourhood():
    assert torch.equal(Raster().window((4, 5)).visible(), torch.ones(20, 20, dtype=torch.bool).tril())
    assert Neighbourhood(9, "raster").window((4, 5)) == Raster().window((4, 5))
    assert Neighbourhood(9).window((4, 5)) == Quadrant().window((4, 5))


def test_a_window_is_six_numbers():
    assert Neighbourhood(2, "raster", prefix=3).window((4, 5)) == Window(4, 5, 2, 2, 2, 3)
    assert Quadrant().window((0, 5)).visible().shape == (0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Raster(prefix=21).window((4, 5)), "the prefix must be 0 to 20 pixels of 4x5, not 21"),
        (lambda: Quadrant(prefix=-1).window((4, 5)), "the prefix must be 0 to 20 .* not -1"),
        (lambda: Neighbourhood(-1), "radius .* not -1"),
        (lambda: Neighbourhood(1, "circle"), "'quadrant' or 'raster', not 'circle'"),
        (lambda: Raster().window((-1, 5)), r"the grid must be .* not \(-1, 5\)"),
    ],
)
def test_bad_contexts_are_one_sentence(make, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
