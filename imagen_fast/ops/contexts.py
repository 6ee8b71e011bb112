"""Who may attend to whom: what every attention back-end reads.

`Visible` is for patches of which every image hides its own set. It is built once a step and shared by all
layers; its tables live on the device of the masks or lengths they were made from, so a kernel never waits for
the host. `Raster`, `Quadrant` and `Neighbourhood` are for pixels that are generated one after another: they
are the same for all images, and six numbers say all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput


@dataclass(frozen=True)
class Rows:
    """The token rows of each image that take part, in order.

    The i-th row of image `b` (`i < count`) is row `start + i` of its tensor, or `start + index[b, i]`
    where there is an index. `spans` holds (start, count) for each image; without it every image has
    all of its rows. `longest` bounds `count` from above and is known on the host, so that a kernel's
    tile can be chosen without asking the device. `tokens` is the size of the grid that an index is
    into, for tensors [B, N, H, D]; rows of a packed tensor have none.

    `places` says where on the grid each row of the tensor lies, for what depends on it: a rotary embedding,
    a bias of relative positions. Without it a row's number is its place.
    """

    longest: int
    spans: Tensor | None = None  # [B, 2] int32
    index: Tensor | None = None  # [B, L] int32, L >= longest
    tokens: int | None = None
    places: Tensor | None = None  # [N] or [T] int32

    def problem(self, x: Tensor) -> str | None:
        """Why these are no rows of `x` ([B, N, H, D] or packed [T, H, D]), or None.

        The tables themselves are looked at on the CPU only: on a GPU that would wait for it.
        """
        if self.places is not None and self.places.shape != x.shape[-3:-2]:
            return f"it has places for {len(self.places)} rows"
        if self.places is not None and self.places.device != x.device:
            return f"its places are on {self.places.device}"
        if self.spans is None:
            return None if x.dim() == 4 else "it does not say where each image begins"
        if (self.tokens is None) != (x.dim() == 3):
            kind = "packed tensors [T, H, D]" if self.tokens is None else "tensors [B, N, H, D]"
            return f"it is for {kind}"
        if self.tokens is not None and self.tokens != x.shape[1]:
            return f"it is for a grid of {self.tokens} tokens"
        if self.spans.device != x.device:
            return f"it is on {self.spans.device}"
        if self.spans.device.type != "cpu" or torch.compiler.is_compiling() or not len(self.spans):
            return None
        start, count = self.spans.unbind(1)
        last = int((start + count).max())
        if int(count.max()) > self.longest:
            return f"it lists {int(count.max())} rows of an image where at most {self.longest} were announced"
        if int(self.spans.min()) < 0 or (x.dim() == 3 and last > len(x)):
            return f"it lists rows up to {last}, with a least start or count of {int(self.spans.min())}"
        return None

    def shares_a_place(self) -> bool:
        """Whether two rows of one image lie at one place; for tables on the CPU."""
        if self.places is None or not len(self.places):
            return False
        if self.spans is None:
            place, exists = self.places[None, : self.longest], torch.ones(1, dtype=torch.bool)
        else:
            i = torch.arange(self.longest)
            exists = i < self.spans[:, 1:]
            listed = self.spans[:, :1] + (i if self.index is None else self.index[:, : self.longest])
            place = self.places[torch.where(exists, listed, 0).long()]
        ordered = torch.where(exists, place, -1 - torch.arange(self.longest)).sort(1).values
        return bool((ordered[:, 1:] == ordered[:, :-1]).any())

    def misplaced(self, x: Tensor, grid: int) -> str | None:
        """Why the places of the rows of `x` are none on a grid of `grid` places, or None.

        The places themselves are looked at on the CPU only: on a GPU that would wait for it.
        """
        if self.places is None:
            if x.dim() == 3:
                return "packed rows need places: give them to the context"
            return None if x.shape[1] <= grid else f"there are {x.shape[1]} tokens"
        if self.places.device.type != "cpu" or torch.compiler.is_compiling() or not len(self.places):
            return None
        low, high = int(self.places.min()), int(self.places.max())
        return None if low >= 0 and high < grid else f"there is a place {low if low < 0 else high}"


@dataclass(frozen=True)
class Visible:
    """Every query row of an image attends to every key row of the same image.

    Build one with `in_place`, `packed` or `cross`. Hidden rows are in neither list where they must
    not be seen: kernels never read them.
    """

    queries: Rows
    keys: Rows

    @classmethod
    def in_place(
        cls,
        hidden: Tensor,
        rows: Literal["all", "visible", "hidden"] = "all",
        most_visible: int | None = None,
    ) -> Visible:
        """Tokens stay on the full grid (BEiT, SimMIM, an attention mask); hidden keys are never read.

        Args:
            hidden: [B, N] bool, true where a token is hidden.
            rows: which rows are asked for as queries; the others give zeros.
            most_visible: an upper bound of the visible tokens of an image, where the caller knows one
                (a fixed mask ratio): it lets kernels choose a smaller tile. N where it is not given.

        Raises:
            InvalidInput: `hidden` is not a bool matrix, or `rows` is none of the three words.
        """
        if hidden.dim() != 2 or hidden.dtype != torch.bool:
            raise InvalidInput(
                f"hidden must be a bool tensor [images, tokens], not {hidden.dtype} {tuple(hidden.shape)}"
            )
        tokens = hidden.shape[1]
        visible = _listed(~hidden, tokens if most_visible is None else min(most_visible, tokens))
        if rows == "all":
            return cls(Rows(tokens, tokens=tokens), visible)
        if rows == "visible":
            return cls(visible, visible)
        if rows == "hidden":
            return cls(_listed(hidden, tokens), visible)
        raise InvalidInput(f"rows must be 'all', 'visible' or 'hidden', not {rows!r}")

    @classmethod
    def packed(cls, lengths: Tensor, longest: int | None = None, places: Tensor | None = None) -> Visible:
        """Only visible tokens, one image after another in a tensor [T, H, D] (MAE encoder, NaViT).

        Args:
            lengths: [B] integers, tokens of each image; zero is allowed.
            longest: an upper bound of `lengths`. Without it the largest is read from the device, which
                waits for it.
            places: [T] integers, where on the grid each row lies; a rotary embedding and a bias need them,
                and a place on the grid for rows of no image too.

        The lengths must add up to no more than T, and none may exceed `longest`. Both are checked where
        the lengths are on the CPU.
        """
        rows = _packed_rows(lengths, longest, places)
        return cls(rows, rows)

    @classmethod
    def cross(
        cls,
        query_lengths: Tensor,
        key_lengths: Tensor,
        longest_query: int | None = None,
        longest_key: int | None = None,
        query_places: Tensor | None = None,
        key_places: Tensor | None = None,
    ) -> Visible:
        """Packed queries [T, H, D] attend to the packed keys [T', H, D] of their image (CrossMAE, I-JEPA).

        Lengths, bounds and places are those of `packed`.
        """
        if query_lengths.shape != key_lengths.shape:
            raise InvalidInput(
                f"query_lengths and key_lengths must name as many images, not {tuple(query_lengths.shape)}"
                f" and {tuple(key_lengths.shape)}"
            )
        return cls(
            _packed_rows(query_lengths, longest_query, query_places),
            _packed_rows(key_lengths, longest_key, key_places),
        )


def _listed(member: Tensor, longest: int) -> Rows:
    """Rows that list the true entries of `member` [B, N] in ascending order."""
    count = member.sum(1, dtype=torch.int32)
    # A stable sort puts members first and keeps their order, at a size the host knows.
    index = (~member).to(torch.uint8).argsort(dim=1, stable=True).to(torch.int32)
    return Rows(longest, torch.stack([torch.zeros_like(count), count], 1), index, member.shape[1])


def _packed_rows(lengths: Tensor, longest: int | None, places: Tensor | None) -> Rows:
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise InvalidInput(
            f"lengths must be integers [images], not {lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if longest is None:
        longest = int(lengths.max()) if len(lengths) else 0
    count = lengths.to(torch.int32)
    start = count.cumsum(0, dtype=torch.int32) - count
    if places is not None:
        if places.dim() != 1 or places.is_floating_point() or places.dtype == torch.bool:
            raise InvalidInput(
                f"places must be integers [rows], not {places.dtype} of shape {tuple(places.shape)}"
            )
        places = places.to(torch.int32)
    return Rows(longest, torch.stack([start, count], 1), places=places)


class Window(NamedTuple):
    """A causal context on a grid, as the kernels take it: pixel (j, k) has the raster number j * width + k.

    The query (j, k) sees the key (y, x) if it comes no later in raster order, y >= j - above and
    k - left <= x <= k + right; and every key whose raster number is below `prefix`.
    """

    height: int
    width: int
    above: int
    left: int
    right: int
    prefix: int

    @property
    def all_before(self) -> bool:
        """Whether each pixel sees every one before it."""
        return self.above >= self.height - 1 and min(self.left, self.right) >= self.width - 1

    def visible(self, device: torch.device | None = None) -> Tensor:
        """[N, N] bool: row i is true where query i sees the key."""
        every = torch.arange(self.height * self.width, device=device)
        return self.sees(every, every)

    def sees(self, queries: Tensor, keys: Tensor) -> Tensor:
        """[M, N] bool, of raster numbers [M] and [N]: which query sees which key."""
        q, k = queries[:, None], keys[None]
        down, along = q // self.width - k // self.width, q % self.width - k % self.width
        near = (down <= self.above) & (along <= self.left) & (along >= -self.right)
        return ((k <= q) & near) | (k < self.prefix)


@dataclass(frozen=True)
class Raster:
    """A pixel sees itself and all pixels before it, row by row (Chen et al. 2020, iGPT).

    `prefix` pixels, the first in raster order, are seen by all: among themselves they attend in both
    directions (Raffel et al. 2020, section 3.2.1; El-Nouby et al. 2024, AIM).
    """

    prefix: int = 0

    def window(self, grid: tuple[int, int]) -> Window:
        """On a grid of (height, width) pixels.

        Raises:
            InvalidInput: there are not as many pixels as the prefix has.
        """
        return _window(grid, grid[0], grid[1], grid[1], self.prefix)


@dataclass(frozen=True)
class Quadrant:
    """A pixel sees itself and all pixels neither below it nor to its right; and those of the prefix.

    Pixels of one anti-diagonal do not see each other, nor does what they see depend on them: they can be
    generated at once.
    """

    prefix: int = 0

    def window(self, grid: tuple[int, int]) -> Window:
        """On a grid of (height, width) pixels; raises as that of `Raster`."""
        return _window(grid, grid[0], grid[1], 0, self.prefix)


@dataclass(frozen=True)
class Neighbourhood:
    """A pixel sees what `Quadrant` or `Raster` lets it see in a window of (2 radius + 1)^2 pixels around it.

    Radius 1 of the quadrant is the pixel (j, k) itself, (j-1, k-1), (j-1, k) and (j, k-1).
    """

    radius: int
    of: Literal["quadrant", "raster"] = "quadrant"
    prefix: int = 0

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise InvalidInput(f"the radius of a neighbourhood must be 0 or more pixels, not {self.radius}")
        if self.of not in ("quadrant", "raster"):
            raise InvalidInput(f"a neighbourhood is of 'quadrant' or 'raster', not {self.of!r}")

    def window(self, grid: tuple[int, int]) -> Window:
        """On a grid of (height, width) pixels; raises as that of `Raster`."""
        right = self.radius if self.of == "raster" else 0
        return _window(grid, self.radius, self.radius, right, self.prefix)


CausalContext = Raster | Quadrant | Neighbourhood


class OnGrid(NamedTuple):
    """A causal context and the grid (height, width) that it is on: what a block of a model needs to know."""

    context: CausalContext
    grid: tuple[int, int]


def _window(grid: tuple[int, int], above: int, left: int, right: int, prefix: int) -> Window:
    height, width = grid
    if height < 0 or width < 0:
        raise InvalidInput(f"the grid must be (height, width) of pixels, not {grid}")
    if not 0 <= prefix <= height * width:
        raise InvalidInput(
            f"the prefix must be 0 to {height * width} pixels of {height}x{width}, not {prefix}"
        )
    # No more than the grid has, so that equal contexts are one case for a kernel.
    return Window(height, width, min(above, height), min(left, width), min(right, width), prefix)
