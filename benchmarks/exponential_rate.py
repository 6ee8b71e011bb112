"""A Triton kernel that makes exponentials and hardly anything else: how many a second a GPU has."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
REPEATS = 256
WARPS = 4
# Of each multiprocessor in turn: enough that the last ones to end cost nothing.
PROGRAMS_A_MULTIPROCESSOR = 64


@triton.jit
def powers_of_two(y, REPEATS: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = place.to(tl.float32) * 1e-9
    for _ in range(REPEATS):
        # Between 0 and 1 for ever: the sign comes with the operand.
        x = tl.exp2(-x)
    tl.store(y + place, x)


def output(device: torch.device) -> Tensor:
    """What `launch` fills."""
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return torch.empty(multiprocessors * PROGRAMS_A_MULTIPROCESSOR * BLOCK, device=device)


def launch(y: Tensor) -> int:
    """Fill `y`, whose size is a multiple of BLOCK; the number of exponentials that were made."""
    powers_of_two[(y.numel() // BLOCK,)](y, REPEATS=REPEATS, BLOCK=BLOCK, num_warps=WARPS)
    return y.numel() * REPEATS
