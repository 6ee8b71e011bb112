"""Cases of masked-patch attention: the three uses, at odd and at empty sizes."""

from __future__ import annotations

import pytest
import torch

from imagen_fast.ops import Visible

USES = ("dense", "dense cross", "all", "visible", "hidden", "packed", "packed cross")


def attention_case(use: str, dtype: torch.dtype, batch=3, tokens=23, heads=2, width=32, seed=0):
    """q, k, v (views of a fused qkv where there is one) and the context of a use; one image shows nothing."""
    draw = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    if use == "dense":
        return randn(batch, tokens, 3, heads, width).unbind(2), None
    if use == "dense cross":
        return (randn(batch, 7, heads, width), *randn(batch, tokens, 2, heads, width).unbind(2)), None
    if use in ("all", "visible", "hidden"):
        hidden = torch.rand(batch, tokens, generator=draw) < 0.6
        hidden[1:2] = True
        return randn(batch, tokens, 3, heads, width).unbind(2), Visible.in_place(hidden, use)
    lengths = torch.randint(1, tokens + 1, (batch,), generator=draw)
    lengths[1:2] = 0
    if use == "packed":
        return randn(int(lengths.sum()), 3, heads, width).unbind(1), Visible.packed(lengths)
    asked = torch.randint(1, 9, (batch,), generator=draw)
    q = randn(int(asked.sum()), heads, width)
    return (q, *randn(int(lengths.sum()), 2, heads, width).unbind(1)), Visible.cross(asked, lengths)


@pytest.fixture(params=USES)
def use(request):
    return request.param


@pytest.fixture(scope="session")
def make_attention_case():
    return attention_case


def predicted_rows(shape, outputs: int, levels: int, dtype: torch.dtype, target=torch.uint8, seed=0):
    """hidden [..., E], weight, target (the first and the last level among them) and bias of a likelihood."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(shape, generator=draw).to(dtype)
    weight = (torch.randn(outputs, shape[-1], generator=draw) * 2 / shape[-1] ** 0.5).to(dtype)
    bias = torch.randn(outputs, generator=draw).to(dtype)
    level = torch.randint(0, levels, shape[:-1], generator=draw)
    level.view(-1)[1::7], level.view(-1)[3::7] = 0, levels - 1
    return hidden, weight, level.to(target), bias


def likelihood_outcome(op, tensors, dtype: torch.dtype, **options):
    """The loss, with its gradients from incoming ones that differ from row to row, by name."""
    hidden, weight, target, bias = tensors
    parameters = {"hidden": hidden, "weight": weight, "bias": bias}
    leaves = {
        name: x.detach().to(dtype, copy=True).requires_grad_()
        for name, x in parameters.items()
        if x is not None
    }
    loss = op(leaves["hidden"], leaves["weight"], target, leaves.get("bias"), **options)
    loss.backward(torch.linspace(0.3, 1.7, loss.numel(), dtype=loss.dtype).view(loss.shape))
    return {"loss": loss.detach()} | {name: x.grad for name, x in leaves.items()}


@pytest.fixture(scope="session")
def make_predicted_rows():
    return predicted_rows


@pytest.fixture(scope="session")
def outcome():
    return likelihood_outcome


@pytest.fixture(scope="session")
def likelihood_bound(error_bound):
    """`options` go to the reference too, except for the back-end."""

    def check(op, tensors, dtype, **options):
        exact = likelihood_outcome(op, tensors, torch.float64, **options | {"backend": "reference"})
        peer = likelihood_outcome(op, tensors, dtype, **options | {"backend": "reference"})
        ours = likelihood_outcome(op, tensors, dtype, **options)
        assert ours["loss"].dtype == torch.float32
        for name, actual in ours.items():
            error_bound(actual, exact[name], peer[name], name)
        return ours

    return check
