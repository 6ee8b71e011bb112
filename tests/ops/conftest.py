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
