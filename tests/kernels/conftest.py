"""What all kernel tests share: where they run, and memory that starts as NaN."""

import pytest
import torch

from imagen_fast.kernels import launch

if launch.INTERPRETED:
    import quick_interpreter

    quick_interpreter.install()

_TARGETS = [
    # The interpreter's bfloat16 products are wrong, so that type waits for a GPU.
    pytest.param(("cpu", torch.float32), id="interpreter-float32"),
    pytest.param(("cpu", torch.float16), id="interpreter-float16"),
    pytest.param(("cuda", torch.float32), id="gpu-float32", marks=pytest.mark.gpu),
    pytest.param(("cuda", torch.float16), id="gpu-float16", marks=pytest.mark.gpu),
    pytest.param(("cuda", torch.bfloat16), id="gpu-bfloat16", marks=pytest.mark.gpu),
]


def _skip_unless_runnable(device: str) -> None:
    if device == "cpu" and not launch.INTERPRETED:
        pytest.skip("runs in the subprocess of test_interpreter.py, under TRITON_INTERPRET=1")
    if device == "cuda" and (launch.INTERPRETED or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device")


@pytest.fixture(params=_TARGETS)
def target(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    """Device and type of a property that holds wherever a kernel runs."""
    _skip_unless_runnable(request.param[0])
    return request.param


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)], ids=["interpreter", "gpu"])
def device(request: pytest.FixtureRequest) -> str:
    _skip_unless_runnable(request.param)
    return request.param


@pytest.fixture(autouse=True)
def _empty_memory_is_nan(poisoned_memory: None) -> None:
    """An output that a kernel forgets to write then shows."""
