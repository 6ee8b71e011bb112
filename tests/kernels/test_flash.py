"""Our Triton kernels in the terms of PyTorch's flash operators: outputs, logarithms of sums and gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from imagen_fast.kernels import launch
from imagen_fast.kernels.masked_patch_attention_launch import run_forward
from imagen_fast.ops import flash
from imagen_fast.ops.contexts import Raster

SCALE = 0.3


# All keys in one tile, a whole row, a row in parts (float32), a long row; and causal ones.
@pytest.mark.parametrize(
    ("queries", "keys", "causal"),
    [(5, 9, False), (3, 70, False), (9, 131, False), (7, 271, False), (9, 9, True), (70, 70, True)],
)
def test_as_flash_attention(error_bound, target, queries, keys, causal) -> None:
    device, dtype = target
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 2, 16, generator=draw).to(device, dtype) for n in (queries, keys, keys))
    d_out = torch.randn(q.shape, generator=draw).to(device, dtype)
    window = Raster().window((1, queries)) if causal else None

    out, lse = flash._triton_forward(q, k, v, window, SCALE)
    statistics = torch.stack((lse * 1.4426950408889634, torch.ones_like(lse)), 2)
    gradients = flash._triton_backward(d_out, q, k, v, out, statistics, window, SCALE)

    def peer(wide):
        leaves = [x.to(wide).requires_grad_() for x in (q, k, v)]
        heads_first = (x.transpose(1, 2) for x in leaves)
        made = scaled_dot_product_attention(*heads_first, is_causal=causal, scale=SCALE).transpose(1, 2)
        return [made.detach(), *torch.autograd.grad(made, leaves, d_out.to(wide))]

    ours = [out, *gradients]
    for name, *found in zip(("out", "dq", "dk", "dv"), ours, peer(torch.float64), peer(dtype), strict=True):
        error_bound(*found, name)
    scores = torch.einsum("bmhd,bnhd->bhmn", q.double(), k.double()) * SCALE
    if causal:
        scores = scores.masked_fill(~window.visible(scores.device), -torch.inf)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
    if not causal:
        # Nobody else's output changes by a bit.
        assert torch.equal(out, run_forward(q, k, v, *(None,) * 4, queries, keys, SCALE))


@pytest.mark.gpu
@pytest.mark.skipif(launch.INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_plain_calls_on_a_gpu(error_bound, dtype, causal) -> None:
    from imagen_fast.integrations.torch_attention import register_flash_attention

    drawn = torch.randn(3, 2, 3, 197, 64, dtype=dtype, device="cuda")
    weight = torch.randn(drawn.shape[1:], dtype=dtype, device="cuda")

    def outcome(wide):
        leaves = [x.to(wide).requires_grad_() for x in drawn]
        out = scaled_dot_product_attention(*leaves, is_causal=causal)
        return [out.detach(), *torch.autograd.grad(out, leaves, weight.to(wide))]

    exact = outcome(torch.float64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        before = outcome(dtype)
        register_flash_attention()
        torch.nn.attention.activate_flash_attention_impl("imagen_fast")
        try:
            ours = outcome(dtype)
        finally:
            torch.nn.attention.restore_flash_attention_impl()
        after = outcome(dtype)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[0], ours[0])
    for name, *found in zip(("out", "dq", "dk", "dv"), ours, exact, before, strict=True):
        error_bound(*found, name)
