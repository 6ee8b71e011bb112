"""What all tests share: one error bound, and memory that is never zero by accident."""

from __future__ import annotations

import pytest
import torch

from imagen_fast.benchmarks.correctness import bounded


def assert_error_bound(actual: torch.Tensor, exact: torch.Tensor, peer: torch.Tensor, what: str = "") -> None:
    """`actual` against `exact` (float64), no worse than `peer` (plain PyTorch in the type of `actual`)."""
    verdict = bounded(actual, exact, peer, what)
    assert verdict.correct, verdict.evidence


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
