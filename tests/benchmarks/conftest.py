"""What the tests of several suites share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Products this small wait for the other threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
