"""What all tests share: one error bound, memory that is never zero by accident, every instruction set."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.benchmarks.correctness import bounded

# The longest first: with processes side by side, none of them is left alone with one of these at the end.
LONGEST = ("test_aot.py", "test_interpreter.py", "test_packaging.py", "test_fuzz.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


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


@pytest.fixture
def one_thread():
    """Products this small wait for the other threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def use_instruction_set():
    """Call it with a name: the native kernels are then as on a processor with no more than that."""
    if not native.available():
        pytest.skip(native.unavailable_because())
    best = native.build_info()["instruction_set"]

    def use(name):
        try:
            native.use_instruction_set(name)
        except ValueError as error:
            pytest.skip(str(error))

    yield use
    native.use_instruction_set(best)


@pytest.fixture(params=["avx512_bf16", "avx512", "avx2", "portable"])
def instruction_set(request, use_instruction_set):
    """Each of them, one after another."""
    use_instruction_set(request.param)
    return request.param
