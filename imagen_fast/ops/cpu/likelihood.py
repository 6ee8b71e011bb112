"""What the two likelihoods share on the CPU: three operators of PyTorch each, over the native kernels.

For a scalar loss one pass of the forward makes the gradients too, of the very scalar that is wanted: the
backward gives them away as they are, or multiplies them where the loss is weighed. For a loss a row the
backward projects once more. Without gradients the forward makes none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from imagen_fast import native
from imagen_fast.operators import NAMESPACE, registered

_TYPES = (torch.float32, torch.bfloat16)
_TENSORS = "Tensor hidden, Tensor weight, Tensor? bias, Tensor target, Tensor? keep"

# Asked once, here: torch.compile traces a plain variable, but not the loading of a module.
_UNAVAILABLE = native.unavailable_because()


def refusal(hidden: Tensor, *_: Tensor | None) -> str | None:
    if hidden.device.type != "cpu":
        return f"it serves CPU tensors, and these are on {hidden.device}"
    if hidden.dtype not in _TYPES:
        return f"it serves float32 and bfloat16, and these are {hidden.dtype}"
    if not hidden.shape[-1]:
        return "the hidden vectors have no elements"
    return _UNAVAILABLE


def register(
    name: str, options: str, likelihood: Callable[..., native.PixelLikelihood], keeps_log_z: bool
) -> Callable[..., Tensor]:
    """The operators `imagen_fast::NAME_cpu`, `NAME_losses_cpu` and `NAME_losses_backward_cpu`.

    Args:
        options: the schema of what follows the tensors.
        likelihood: makes the native description of the tensors and options.
        keeps_log_z: whether the backward needs the logarithm of each row's normaliser.

    Returns:
        A function of the tensors, the options and `factor`: a number or scalar tensor for so many times the
        sum of the losses, None for each row's [G, M].
    """
    define = library.custom_op
    full = f"{NAMESPACE}::{name}"

    def total(*inputs):
        *arguments, factor, gradients = inputs
        made = likelihood(*arguments).total(float(factor), gradients)
        return made.total, made.d_hidden, made.d_weight, made.d_bias

    total_op = define(
        f"{full}_cpu",
        total,
        mutates_args=(),
        device_types="cpu",
        schema=f"({_TENSORS}, {options}, Tensor factor, bool gradients) -> (Tensor, Tensor, Tensor, Tensor)",
    )

    @total_op.register_fake
    def _(hidden, weight, bias, *rest):
        made = _gradients_like(hidden, weight, bias) if rest[-1] else (hidden.new_empty(0),) * 3
        return hidden.new_empty((), dtype=torch.float32), *(x.new_empty(x.shape) for x in made)

    total_op.register_autograd(_scale, setup_context=_save_gradients)

    def losses(*inputs):
        log_z = torch.zeros(inputs[3].shape if keeps_log_z else 0, dtype=torch.float32)
        return likelihood(*inputs).losses(log_z if keeps_log_z else None), log_z

    losses_op = define(
        f"{full}_losses_cpu",
        losses,
        mutates_args=(),
        device_types="cpu",
        schema=f"({_TENSORS}, {options}) -> (Tensor, Tensor)",
    )

    @losses_op.register_fake
    def _(hidden, *rest):
        made = hidden.new_empty(hidden.shape[:2], dtype=torch.float32)
        return made, hidden.new_empty(hidden.shape[:2] if keeps_log_z else 0, dtype=torch.float32)

    def backward(d_losses, log_z, *inputs):
        return likelihood(*inputs).backward(d_losses, log_z if keeps_log_z else None)

    backward_op = define(
        f"{full}_losses_backward_cpu",
        backward,
        mutates_args=(),
        device_types="cpu",
        schema=f"(Tensor d_losses, Tensor log_z, {_TENSORS}, {options}) -> (Tensor, Tensor, Tensor)",
    )

    @backward_op.register_fake
    def _(d_losses, log_z, hidden, weight, bias, *rest):
        return _gradients_like(hidden, weight, bias)

    def save_rows(ctx, inputs, output):
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *inputs[:5])
        ctx.options = inputs[5:]

    def differentiate(ctx, d_losses, _):
        if d_losses is None:
            return (None,) * (5 + len(ctx.options))
        log_z, hidden, weight, bias, *others = ctx.saved_tensors
        made = backward_op(d_losses, log_z, hidden, weight, bias, *others, *ctx.options)
        d_hidden, d_weight, d_bias = made
        d_bias = None if bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight.to(weight.dtype), d_bias, *(None,) * (2 + len(ctx.options))

    losses_op.register_autograd(differentiate, setup_context=save_rows)

    @register_flop_formula(getattr(registered, f"{name}_cpu"))
    def _(hidden, weight, *rest, out_shape=None, **kwargs):
        return _product(hidden, weight) * (3 if rest[-1] else 1)

    @register_flop_formula(getattr(registered, f"{name}_losses_cpu"))
    def _(hidden, weight, *rest, out_shape=None, **kwargs):
        return _product(hidden, weight)

    @register_flop_formula(getattr(registered, f"{name}_losses_backward_cpu"))
    def _(d_losses, log_z, hidden, weight, *rest, out_shape=None, **kwargs):
        return _product(hidden, weight) * 3  # the projection is made again

    def call(*inputs) -> Tensor:
        *arguments, factor = inputs
        if factor is None:
            return losses_op(*arguments)[0]
        gradients = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in arguments[:3])
        if not isinstance(factor, Tensor):
            factor = arguments[0].new_full((), factor, dtype=torch.float32)
        return total_op(*arguments, factor, gradients)[0]

    return call


def _gradients_like(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    return (
        hidden.new_empty(hidden.shape),
        weight.new_empty(weight.shape, dtype=torch.float32),
        weight.new_empty(0 if bias is None else len(bias), dtype=torch.float32),
    )


def _save_gradients(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])
    ctx.made, ctx.has_bias, ctx.rest = inputs[-1], inputs[2] is not None, len(inputs) - 3
    ctx.dtype = inputs[1].dtype


def _scale(ctx, d_total, *_):
    if d_total is None:
        return (None,) * (3 + ctx.rest)
    if not ctx.made:
        raise RuntimeError("the forward was told that nobody would ask for gradients")
    # As they are where they can be: that saves a copy of what may be the largest tensor. Whoever writes into
    # a gradient of a graph that is kept hears of it from the next backward, as in all of PyTorch.
    made = ctx.saved_tensors
    if not _is_one(d_total):
        made = tuple(x * d_total for x in made)
    d_hidden, d_weight, d_bias = made
    d_bias = d_bias.to(ctx.dtype) if ctx.has_bias else None
    return d_hidden, d_weight.to(ctx.dtype), d_bias, *(None,) * ctx.rest


def _is_one(x: Tensor) -> bool:
    """Whether x is known to be 1, and nobody asks for its gradient. In a trace or a batch it has no value."""
    if type(x) is not Tensor or x.requires_grad:
        return False
    try:
        return x.item() == 1
    except RuntimeError:
        return False


def _product(hidden_shape, weight_shape) -> int:
    groups, rows, width = hidden_shape
    return 2 * groups * rows * width * weight_shape[0]
