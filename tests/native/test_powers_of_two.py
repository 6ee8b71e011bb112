"""2^x of the CPU kernels, beside PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput


@pytest.mark.parametrize(("half", "bound"), [(False, 1.2e-7), (True, 8e-5)])
@pytest.mark.parametrize("count", [1, 7, 16, 33, 4099])
@pytest.mark.parametrize("threads", [1, 3])
def test_powers(count, half, bound, threads, thread_count):
    thread_count(threads)
    x = torch.linspace(-100, 100, count)
    exact = torch.exp2(x.double())
    for repeats in (1, 3):
        error = (native.powers_of_two(x, half, repeats).double() / exact - 1).abs().max()
        assert error <= bound


def test_other_types_are_refused():
    with pytest.raises(InvalidInput, match=r"x must be torch\.float32"):
        native.powers_of_two(torch.zeros(3, dtype=torch.bfloat16), half=True)
