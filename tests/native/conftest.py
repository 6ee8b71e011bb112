"""Tests of the compiled modules, and what they need."""

from __future__ import annotations

import pytest

from imagen_fast import native


def pytest_collection_modifyitems(items):
    if native.available():
        return
    for item in items:
        if "/native/" in item.path.as_posix() and "without" not in item.name:
            item.add_marker(pytest.mark.skip(reason=native.unavailable_because() or ""))


@pytest.fixture
def thread_count():
    """Call it with a number; the old one comes back."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
