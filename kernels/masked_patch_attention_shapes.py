"""Block shapes of masked-patch attention: which tile a program holds, and how many warps hold it.

Chosen from what the assembler reports (``python -m imagen_fast.kernels.aot``): the largest tiles that
spill on no chip they serve, with 64 rows where a Hopper matrix instruction wants them. No stopwatch
has chosen among them yet. Products in fp32 are no matrix instructions: each thread then holds whole
rows of its operands, so that those tiles are small, and a row of logits is made in parts.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch

ASSEMBLED_BY = "3.8"  # the Triton whose assembler was asked; another's may spill a few registers

ONE_TILE = 64  # keys that one tile holds; see `one_tile`
WHOLE_ROW = 256  # keys up to which a program keeps whole rows of logits in registers
WIDEST_PLACED = 64  # head width up to which there are registers for a rotary embedding or a bias

# Elements of k that fit shared memory beside v, the queries and their gradients, by the chip's limit.
_163_KB, _227_KB, _99_KB = 128 * 128, 256 * 128, 64 * 128
_KEY_ELEMENTS = {80: _163_KB, 87: _163_KB, 90: _227_KB, 100: _227_KB, 103: _227_KB, 110: _227_KB}


@dataclass(frozen=True)
class Blocks:
    m: int  # queries
    n: int  # keys
    warps: int
    stages: int = 1
    resident: int = 1  # programs a multiprocessor holds, where a program takes many heads


def power_of_two(size: int) -> int:
    """The tile side that holds ``size``; 16 is the least that a product takes.

    Comparisons alone, so that a compiler with symbolic shapes keeps one graph for a range of sizes.
    """
    side = 16
    while side < size:
        side *= 2
    return side


class Case(NamedTuple):
    """What blocks are chosen by, beside the number of keys."""

    width: int  # of a head
    dtype: torch.dtype
    capability: int
    placed: bool = False  # with a rotary embedding or a bias

    @property
    def single(self) -> bool:
        return self.dtype == torch.float32


def _operands_in_shared(capability: int) -> bool:
    """Data-centre Hopper and Blackwell feed products from shared memory, which leaves registers free."""
    return 90 <= capability < 120


def key_row(k_longest: int) -> int:
    """The tile side of a whole row of keys. Fewer than 64 would give up Hopper's instructions."""
    return max(ONE_TILE, power_of_two(k_longest))


def forward_row(k_longest: int, shape: Blocks) -> int:
    """Keys of the row of logits that a program holds, in one tile or in parts; 0 where it holds none."""
    return max(shape.n, power_of_two(k_longest)) if k_longest <= WHOLE_ROW else 0


def forward_short_blocks(case: Case) -> Blocks:
    """Half types, up to 64 keys, many heads a program.

    What hides the memory's latency is the bytes on their way: programs times stages. Two stages take about
    twice the registers and the shared memory of a program a head, so that half as many programs are
    resident with as many bytes on their way; what is gained is that a block is stored while the next one
    is loaded, and that nothing starts anew for each head. ``resident`` is what registers allow:
    103 to 118, 155 (198 on sm_80) and 255 a thread at widths 32, 64 and 128, and 104 KB at the last.
    """
    if case.placed and case.width > 32:
        return Blocks(64, ONE_TILE, 8, stages=2)
    wide = 3 if _operands_in_shared(case.capability) and not case.placed else 2
    resident = 4 if case.width <= 32 and not case.placed else wide if case.width <= 64 else 2
    return Blocks(64, ONE_TILE, 4, stages=2, resident=resident)


def forward_blocks(k_longest: int, case: Case) -> Blocks:
    if case.single:
        if case.width <= 32:
            return Blocks(32, 32, 4)
        if case.placed:
            return Blocks(32, 16, 8)
        return Blocks(32 if case.width <= 64 else 16, 64, 8)
    if k_longest > WHOLE_ROW:
        if case.placed:
            wide = case.width > 32 and not _operands_in_shared(case.capability)
            return Blocks(64, 64, 8 if wide else 4, stages=2)
        return Blocks(64, 64, 4, stages=3) if case.width <= 32 else Blocks(128, 64, 8, stages=2)
    row = key_row(k_longest)
    if case.placed and (case.width > 32 or row == WHOLE_ROW):
        return Blocks(64, 64, 8, stages=2)
    if row == WHOLE_ROW:
        return Blocks(64 if _operands_in_shared(case.capability) else 32, row, 8)
    return Blocks(64, row, 4)


def row_at_once(k_longest: int, case: Case) -> bool:
    """Whether one product makes the first phase's rows of logits: in half types, where all keys fit."""
    fits = key_row(k_longest) * power_of_two(case.width) <= _KEY_ELEMENTS.get(case.capability, _99_KB)
    return fits and not case.single


def one_tile(k_longest: int, case: Case) -> bool:
    """Whether the backward keeps dk and dv of all keys in registers."""
    return k_longest <= ONE_TILE and not (case.single and case.placed)


def backward_short_blocks(case: Case) -> Blocks:
    wide = case.width > (32 if case.placed else 64)
    if case.single:
        return Blocks(16, ONE_TILE, 4 if case.width <= 32 else 8, stages=2)
    if not _operands_in_shared(case.capability):
        return Blocks(16, ONE_TILE, 8 if wide else 4)
    return Blocks(32, ONE_TILE, 4 if case.width <= 32 or (case.capability == 90 and not wide) else 8)


def two_phase_blocks(k_longest: int, case: Case) -> Blocks:
    if case.single:
        if case.width <= 32:
            return Blocks(16, 32, 16) if case.placed else Blocks(32, 32, 8)
        return Blocks(16, 16 if case.width <= 64 else 32, 8)
    row = key_row(k_longest)
    if case.placed:
        return Blocks(16, 64, 8)
    largest = row == WHOLE_ROW and case.width > 64 and case.capability >= 100
    return Blocks(16 if largest else 32, 64, 4 if row <= 128 and case.width <= 64 else 8)


def bias_blocks(case: Case) -> Blocks:
    if case.single:
        return Blocks(16, 32, 8)
    return Blocks(64 if _operands_in_shared(case.capability) else 32, 32, 8)


def query_blocks(case: Case) -> Blocks:
    """The dq kernel of long rows."""
    if case.single:
        if 32 < case.width <= 64 and not case.placed:
            return Blocks(16, 64, 8)
        return Blocks(16, 32, 8) if case.width <= 64 else Blocks(16, 16, 8)
    if case.width <= (32 if case.placed else 64):
        return Blocks(64, 64, 4, stages=2)
    return Blocks(64, 32, 4 if _operands_in_shared(case.capability) else 8, stages=2)


def key_blocks(case: Case) -> Blocks:
    """The dk and dv kernel of long rows."""
    if case.single:
        return Blocks(16, 32, 8) if case.width <= 64 else Blocks(16, 16, 8)
    if case.placed and case.width > 32:
        return Blocks(32, 64 if _operands_in_shared(case.capability) else 32, 8)
    return Blocks(32, 64, 4, stages=2) if case.width <= 64 else Blocks(32, 64, 8)
