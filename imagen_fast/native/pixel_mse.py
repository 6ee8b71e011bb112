"""The fused masked-pixel error: see csrc/cpu/pixel_mse.h."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from imagen_fast.errors import InvalidInput
from imagen_fast.native.library import cpu, threads
from imagen_fast.native.tensors import dtype_number, on_cpu


def masked_pixel_mse_forward(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """The mean over the counted rows, float32 scalar, and each row's own loss, float32 [B, M].

    `prediction` [B, M, P*P*C] and `image` [B, C, H, W] are float32 or bfloat16, each of any strides. Row m is
    patch `index[b, m]`, or patch m without an index; it counts where `keep` is true, or always without it.
    """
    problem, _alive = _problem(prediction, image, index, keep, normalise, eps)
    rows = torch.empty(prediction.shape[:2], dtype=torch.float32)
    mean = problem.forward(loss=rows.data_ptr(), threads=threads())
    return torch.tensor(mean, dtype=torch.float32), rows


def masked_pixel_mse_backward(
    d_loss: float,
    prediction: Tensor,
    image: Tensor,
    index: Tensor | None,
    keep: Tensor | None,
    normalise: bool,
    eps: float,
) -> Tensor:
    """The gradient for `prediction`, contiguous and of its type; zeros in rows that do not count."""
    problem, _alive = _problem(prediction, image, index, keep, normalise, eps)
    d_prediction = torch.empty(prediction.shape, dtype=prediction.dtype)
    problem.backward(d_loss=float(d_loss), d_prediction=d_prediction.data_ptr(), threads=threads())
    return d_prediction


def _problem(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> tuple[Any, list[Tensor]]:
    """The native description, and the tensors that must live as long as it is used."""
    for name, x in (("prediction", prediction), ("image", image)):
        on_cpu(name, x)
    if prediction.dim() != 3 or image.dim() != 4 or len(prediction) != len(image):
        raise InvalidInput(
            "prediction must be [B, M, P*P*C] and image [B, C, H, W], not "
            f"{tuple(prediction.shape)} and {tuple(image.shape)}"
        )
    patch = math.isqrt(prediction.shape[2] // max(image.shape[1], 1))
    if patch < 1 or patch * patch * image.shape[1] != prediction.shape[2]:
        raise InvalidInput(
            f"prediction must have P*P*{image.shape[1]} values a row, not {prediction.shape[2]}"
        )
    if prediction.stride(2) != 1:
        prediction = prediction.contiguous()
    index = _per_row("index", index, prediction, torch.int64)
    keep = _per_row("keep", keep, prediction, torch.bool)
    try:
        problem = cpu().PixelMse(
            image=image.data_ptr(),
            image_dtype=dtype_number("image", image),
            shape=tuple(image.shape),
            strides=image.stride(),
            prediction=prediction.data_ptr(),
            dtype=dtype_number("prediction", prediction),
            rows=prediction.shape[1],
            patch=patch,
            row_strides=prediction.stride()[:2],
            index=0 if index is None else index.data_ptr(),
            keep=0 if keep is None else keep.data_ptr(),
            normalise=normalise,
            eps=eps,
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    return problem, [x for x in (prediction, image, index, keep) if x is not None]


def _per_row(name: str, x: Tensor | None, prediction: Tensor, dtype: torch.dtype) -> Tensor | None:
    if x is None:
        return None
    on_cpu(name, x)
    if x.shape != prediction.shape[:2]:
        raise InvalidInput(f"{name} must be {tuple(prediction.shape[:2])}, not {tuple(x.shape)}")
    if x.is_floating_point() or (x.dtype == torch.bool) != (dtype == torch.bool):
        raise InvalidInput(f"{name} must be {'bool' if dtype == torch.bool else 'integer'}, not {x.dtype}")
    return x.to(dtype).contiguous()
