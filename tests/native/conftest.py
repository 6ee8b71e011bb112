"""Every instruction set that this processor has, one after another."""

from __future__ import annotations

import pytest

from imagen_fast import native

SETS = ["portable", "avx2", "avx512", "avx512_bf16"]


def pytest_collection_modifyitems(items):
    if native.available():
        return
    for item in items:
        if "/native/" in item.path.as_posix() and "without" not in item.name:
            item.add_marker(pytest.mark.skip(reason=native.unavailable_because() or ""))


@pytest.fixture(params=SETS)
def instruction_set(request):
    best = native.build_info()["instruction_set"]
    try:
        native.use_instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    native.use_instruction_set(best)


@pytest.fixture
def thread_count():
    """Call it with a number; the old one comes back."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
