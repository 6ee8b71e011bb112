"""The tiles that programs of causal pixel attention walk, written down by a kernel of their own."""

from collections import Counter

import torch
import triton
import triton.language as tl

from imagen_fast.kernels.causal_pixel_attention_tiles import seeing_tiles, seen_tiles, tile_at


@triton.jit
def written_down(
    lines, columns, counts, height, width, above, left, right, prefix, leading, across, room,
    Q_H: tl.constexpr, Q_W: tl.constexpr, K_H: tl.constexpr, K_W: tl.constexpr, OF_KEYS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    window = (height, width, above, left, right, prefix)
    if OF_KEYS:
        walk = seeing_tiles(tile // across, tile % across, window, Q_H, Q_W, K_H, K_W)
    else:
        walk = seen_tiles(tile // across, tile % across, window, leading, Q_H, Q_W, K_H, K_W)
    for step in range(walk[6]):
        line, column = tile_at(walk, step)
        tl.store(lines + tile * room + step, line)
        tl.store(columns + tile * room + step, column)
    tl.store(counts + tile, walk[6])


def _walks(window, leading, sides, of_keys: bool) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    tall, wide = sides[2:] if of_keys else sides[:2]
    down, across = -(-window.height // tall), -(-window.width // wide)
    room = 4 * window.height * window.width
    lines, columns = torch.zeros(2, down * across, room, dtype=torch.int32)
    counts = torch.zeros(down * across, dtype=torch.int32)
    written_down[(down * across,)](lines, columns, counts, *window, leading, across, room, *sides, of_keys)
    return [
        ((tile // across, tile % across), (int(lines[tile, step]), int(columns[tile, step])))
        for tile in range(down * across)
        for step in range(int(counts[tile]))
    ]


def met_by_queries(window, leading, sides) -> Counter:
    """(tile of queries, tile of keys) that a program of a tile of queries meets."""
    return Counter(_walks(window, leading, sides, False))


def met_by_keys(window, sides) -> Counter:
    """The same of the programs of tiles of keys."""
    return Counter((query, key) for key, query in _walks(window, 0, sides, True))
