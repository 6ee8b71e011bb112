"""What stands in for `imagen_fast.native` in a kernel repository, which is the same for every machine."""

import torch

from imagen_fast.errors import BackendUnavailable


def unavailable_because() -> str:
    return "a kernel repository has no compiled CPU kernels; `pip install imagen-fast` brings them"


def attention_pays(dtype: torch.dtype) -> bool:
    return False


def cross_entropy(*_: object) -> None:
    raise BackendUnavailable(unavailable_because())


logistic_mixture = cross_entropy
