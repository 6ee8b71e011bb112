"""A causal window on a grid, as numbers: its simplest equal, and how many pairs of pixels it lets see.

The query (j, k) sees the key (y, x) if it comes no later in raster order, y >= j - above and
k - left <= x <= k + right; and every key whose raster number is below ``prefix``.
"""

from functools import lru_cache
from typing import NamedTuple


class Window(NamedTuple):
    height: int
    width: int
    above: int
    left: int
    right: int
    prefix: int

    @property
    def limited(self) -> bool:
        """Whether a query may lose sight of pixels for being far away."""
        return self.above < self.height - 1 or self.left < self.width - 1

    @property
    def blind(self) -> bool:
        """Whether every query sees itself only."""
        return self.above == 0 and self.left == 0 and (self.prefix == 0 or self.width == 1)


def simplest(height: int, width: int, above: int, left: int, right: int, prefix: int) -> Window:
    """An equal window on as few lines as can be: raster numbers, and so the order of all rows, stay.

    All earlier pixels of a grid are all earlier pixels of one line, which needs no two-dimensional tiles.
    """
    pixels = height * width
    if width == 1 or height == 1:
        far = above if width == 1 else left
        return Window(1, pixels, 0, min(far, max(pixels - 1, 0)), 0, prefix)
    if above >= height - 1 and left >= width - 1 and right >= width - 1:
        return Window(1, pixels, 0, max(pixels - 1, 0), 0, prefix)
    # In its own line a query sees nothing to its right.
    right = min(right, width - 1) if above > 0 else 0
    return Window(height, width, min(above, height - 1), min(left, width - 1), right, prefix)


@lru_cache
def pairs(height: int, width: int, above: int, left: int, right: int, prefix: int) -> int:
    """How many keys all queries see together: the work of an image and a head."""
    pixels = height * width
    counted = pixels * prefix
    for key in range(prefix, pixels):
        y, x = divmod(key, width)
        below = min(height - 1 - y, above)
        across = min(x + left, width - 1) - max(x - right, 0) + 1
        own_line = min(width - 1 - x, left) + 1
        counted += below * across + own_line
    return counted
