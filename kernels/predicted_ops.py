"""The operators of a likelihood: the sum of its losses with their gradients, or the loss of each row.

The sum, times a factor, makes its own gradients when they will be asked for; the factor is in them before
they are rounded to the type of ``hidden``, but for float16, of which a mean's are too small. Its backward
multiplies them by the gradient that comes in. What
is saved is never changed: a graph may be gone through again.

Both are opaque to compilers: how many chunks a call takes depends on its rows, and a trace would unroll them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from imagen_fast.kernels.predicted_launch import Gradients, Rows, asked, rows_of, scaled_gradient
from imagen_fast.operators import NAMESPACE, registered


@dataclass(frozen=True)
class Likelihood:
    """The launchers of one. ``options`` are its own numbers, in an order that it knows."""

    run_sum: Callable[[Rows, Sequence[float], Gradients, Tensor | None], Tensor]
    run_rows: Callable[
        [Rows, Sequence[float]], tuple[Tensor, Tensor]
    ]  # losses [G, M], and what it saves of them
    run_rows_backward: Callable[[Tensor, Tensor, Rows, Sequence[float], Gradients], None]
    saves: Callable[[Tensor], bool]  # whether it saves a float32 a row, with this weight


def register(name: str, of: Likelihood) -> Callable[..., Tensor]:
    """Make ``imagen_fast::{name}_sum_triton``, ``_rows_triton`` and ``_rows_backward_triton``.

    Returns:
        (hidden, weight, bias, target, keep, ignore_index, options, factor) -> that times the sum of the
        losses, or where it is None, the losses [G, M]
    """

    def run_sum(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        keep: Tensor | None,
        ignore_index: int,
        options: Sequence[float],
        factor: Tensor | None,
        of_hidden: bool,
        of_weight: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = rows_of(hidden, weight, bias, target, keep, ignore_index)
        made = asked(rows, of_hidden, of_weight)
        total = of.run_sum(rows, options, made, factor if made.any else None)
        loss = (total if factor is None else total * factor).float()
        return loss, *made.tensors(loss)

    def run_rows(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        keep: Tensor | None,
        ignore_index: int,
        options: Sequence[float],
    ) -> tuple[Tensor, Tensor]:
        return of.run_rows(rows_of(hidden, weight, bias, target, keep, ignore_index), options)

    def run_rows_backward(
        d_losses: Tensor,
        saved: Tensor,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        keep: Tensor | None,
        ignore_index: int,
        options: Sequence[float],
        of_hidden: bool,
        of_weight: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = rows_of(hidden, weight, bias, target, keep, ignore_index)
        made = asked(rows, of_hidden, of_weight)
        of.run_rows_backward(d_losses.float().contiguous(), saved, rows, options, made)
        return made.tensors(d_losses.new_empty(0, dtype=torch.float32))

    def fake_gradients(hidden, weight, bias, of_hidden, of_weight) -> tuple[Tensor, Tensor, Tensor]:
        nothing = hidden.new_empty(0, dtype=torch.float32)
        return (
            hidden.new_empty(hidden.shape) if of_hidden else nothing,
            nothing.new_empty(weight.shape) if of_weight else nothing.new_empty(0),
            nothing.new_empty(bias.shape) if of_weight and bias is not None else nothing.new_empty(0),
        )

    def fake_sum(
        hidden, weight, bias, target, keep, ignore_index, options, factor, of_hidden, of_weight
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        loss = hidden.new_empty((), dtype=torch.float32)
        return loss, *fake_gradients(hidden, weight, bias, of_hidden, of_weight)

    def fake_rows(hidden, weight, bias, target, keep, ignore_index, options) -> tuple[Tensor, Tensor]:
        losses = hidden.new_empty(target.shape, dtype=torch.float32)
        return losses, losses.new_empty(target.shape if of.saves(weight) else 0)

    def fake_rows_backward(
        d_losses, saved, hidden, weight, bias, target, keep, ignore_index, options, of_hidden, of_weight
    ) -> tuple[Tensor, Tensor, Tensor]:
        return fake_gradients(hidden, weight, bias, of_hidden, of_weight)

    def make(suffix: str, function: Callable, fake: Callable) -> Any:
        op = library.custom_op(f"{NAMESPACE}::{name}_{suffix}_triton", function, mutates_args=())
        op.register_fake(fake)
        return op

    sum_op = make("sum", run_sum, fake_sum)
    rows_op = make("rows", run_rows, fake_rows)
    backward_op = make("rows_backward", run_rows_backward, fake_rows_backward)

    def save_sum(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.types = inputs[1].dtype, None if inputs[2] is None else inputs[2].dtype
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # zeros as large as hidden

    def sum_backward(ctx: Any, d_loss: Tensor | None, *_: None) -> tuple:
        if d_loss is None:
            return (None,) * 10
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        weight_type, bias_type = ctx.types
        return (
            scaled_gradient(d_hidden, d_loss) if ctx.needs_input_grad[0] else None,
            (d_weight * d_loss).to(weight_type) if ctx.needs_input_grad[1] else None,
            (d_bias * d_loss).to(bias_type) if ctx.needs_input_grad[2] else None,
            *(None,) * 7,
        )

    def save_rows(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.ignore_index, ctx.options = inputs
        ctx.save_for_backward(*tensors, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    def rows_backward(ctx: Any, d_losses: Tensor | None, _: None) -> tuple:
        if d_losses is None:
            return (None,) * 7
        *tensors, saved = ctx.saved_tensors
        weight, bias = tensors[1:3]
        wanted = ctx.needs_input_grad
        d_hidden, d_weight, d_bias = backward_op(
            d_losses, saved, *tensors, ctx.ignore_index, ctx.options, wanted[0], wanted[1] or wanted[2]
        )
        return (
            d_hidden if wanted[0] else None,
            d_weight.to(weight.dtype) if wanted[1] else None,
            d_bias.to(bias.dtype) if wanted[2] else None,
            *(None,) * 4,
        )

    sum_op.register_autograd(sum_backward, setup_context=save_sum)
    rows_op.register_autograd(rows_backward, setup_context=save_rows)

    # Shapes come here. A product of all rows with the weight takes two operations an entry.
    def product(hidden, weight) -> int:
        return 2 * hidden[0] * hidden[1] * weight[0] * weight[1]

    def flops_sum(hidden, weight, *_: Any, out_shape: Any = None, **__: Any) -> int:
        of_hidden, of_weight = _[-2:]
        return (1 + of_hidden + of_weight) * product(hidden, weight)

    def flops_rows(hidden, weight, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return product(hidden, weight)

    def flops_rows_backward(
        d_losses, saved, hidden, weight, *_: Any, out_shape: Any = None, **__: Any
    ) -> int:
        of_hidden, of_weight = _[-2:]
        return (1 + of_hidden + of_weight) * product(hidden, weight)

    for suffix, formula in (("sum", flops_sum), ("rows", flops_rows), ("rows_backward", flops_rows_backward)):
        register_flop_formula(getattr(registered, f"{name}_{suffix}_triton"))(formula)

    def likelihood(
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        keep: Tensor | None,
        ignore_index: int,
        options: Sequence[float],
        factor: float | Tensor | None,
    ) -> Tensor:
        given = (hidden, weight, bias, target, keep, ignore_index, options)
        if factor is None:
            return rows_op(*given)[0]
        grad = torch.is_grad_enabled()
        of_weight = grad and (weight.requires_grad or (bias is not None and bias.requires_grad))
        gradients = (grad and hidden.requires_grad, of_weight)
        if hidden.dtype == torch.float16:
            # Gradients of a mean over many rows are less than fp16 can hold: the factor waits for the scale
            # of the loss, which comes in the backward.
            return sum_op(*given, None, *gradients)[0] * factor
        if not isinstance(factor, Tensor):
            factor = hidden.new_full((), factor, dtype=torch.float32)
        return sum_op(*given, factor, *gradients)[0]

    return likelihood
