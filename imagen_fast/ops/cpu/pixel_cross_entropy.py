"""To be written."""

from torch import Tensor


def refusal(*_: Tensor | None) -> str | None:
    return "it is not written yet"


def pixel_cross_entropy(*_):
    raise NotImplementedError
