"""What all tests share: one error bound, and memory that is never zero by accident."""

from __future__ import annotations

import pytest
import torch

# How far an implementation may be from float64, beside PyTorch in the same precision: at most twice its
# maximum error, and 1.1 times its mean error in half types. One rounding of the largest value is always
# allowed: PyTorch may hit a value exactly.
MAX_FACTOR = 2.0
MEAN_FACTOR = 1.1


def assert_error_bound(actual: torch.Tensor, exact: torch.Tensor, peer: torch.Tensor, what: str = "") -> None:
    """`actual` against `exact` (float64), no worse than `peer` (plain PyTorch in the type of `actual`)."""
    assert actual.dtype == peer.dtype, f"{what}: {actual.dtype}, wanted {peer.dtype}"
    assert actual.shape == exact.shape, f"{what}: shape {tuple(actual.shape)}, wanted {tuple(exact.shape)}"
    if actual.numel() == 0:
        return
    assert bool(torch.isfinite(actual).all()), f"{what}: not finite"
    dtype = actual.dtype
    slack = torch.finfo(dtype).eps * exact.abs().max().item()
    ours = (actual.double() - exact).abs()
    theirs = (peer.double() - exact).abs()
    limit = MAX_FACTOR * theirs.max().item() + slack
    assert ours.max().item() <= limit, f"{what}: maximum error {ours.max().item():.3e} above {limit:.3e}"
    if dtype in (torch.bfloat16, torch.float16):
        limit = MEAN_FACTOR * theirs.mean().item() + slack / 32
        assert ours.mean().item() <= limit, f"{what}: mean error {ours.mean().item():.3e} above {limit:.3e}"


@pytest.fixture(scope="session")
def error_bound():
    return assert_error_bound


@pytest.fixture
def poisoned_memory():
    """Memory that nobody has written reads as NaN, so an output left unwritten is found."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before)
    torch.utils.deterministic.fill_uninitialized_memory = filled
