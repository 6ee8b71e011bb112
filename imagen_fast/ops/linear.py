"""The linear layer, without PyTorch's extra pass over the output for the bias on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from imagen_fast.ops.dispatch import transformed


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight^T + bias over the last dimension; weight [out, in], bias [out].

    PyTorch's own, except in bf16 on the CPU: there `addmm` first copies the bias over the whole output and
    then adds the product to it. oneDNN takes the bias with the product (measured: the whole copy, 3 to 10%
    of the forward product, is saved). Like `layer_norm` a detail of our layers, not one of the operations.
    """
    if _fuses(x, weight, bias):
        # Rows: what a function of ours returned as a view could not be written to by the caller.
        rows = x.reshape(-1, x.shape[-1])
        return _Linear.apply(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])
    return torch.nn.functional.linear(x, weight, bias)


def _fuses(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    # A compiler fuses the bias itself.
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == bias.dtype == torch.bfloat16
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not transformed()
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, d_y: Tensor):
        x, weight = ctx.saved_tensors
        d_x = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_x = d_y @ weight
        if ctx.needs_input_grad[1]:
            d_weight = d_y.t() @ x
        if ctx.needs_input_grad[2]:
            d_bias = d_y.sum(0)
        return d_x, d_weight, d_bias
