"""What only a GPU can show: sizes past 32 bits, no wait for the device, the real compiler. ``pytest -m gpu``

The properties in test_masked_patch_attention.py and test_masked_pixel_mse.py run there too, and then in
bfloat16 as well.
"""

import pytest
import torch
from torch import Tensor

from imagen_fast.kernels import launch, masked_patch_attention, masked_pixel_mse, pixel_cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(launch.INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device"),
]

attention = masked_patch_attention.masked_patch_attention
pixel_mse = masked_pixel_mse.masked_pixel_mse
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def fused(images: int, rows: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    torch.manual_seed(rows)
    qkv = torch.randn(images, rows, 3, heads, width, device="cuda", dtype=dtype)
    return tuple(x.detach().requires_grad_() for x in qkv.unbind(2))


def dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attention of all rows to all rows, as einsum: SDPA would choose a peer."""
    p = (torch.einsum("bmhd,bnhd->bhmn", q, k) * scale).softmax(-1)
    return torch.einsum("bhmn,bnhd->bmhd", p, v)


def compare(error_bound, tensors: tuple[Tensor, ...], scale: float) -> None:
    d_out = torch.randn_like(tensors[0].contiguous())

    def run(function, dtype) -> tuple[Tensor, ...]:
        leaves = tuple(x.detach().to(dtype).requires_grad_() for x in tensors)
        out = function(*leaves)
        return out, *torch.autograd.grad(out, leaves, d_out.to(dtype))

    dtype = tensors[0].dtype
    exact = run(lambda *x: dense(*x, scale), torch.float64)
    same = run(lambda *x: dense(*x, scale), dtype)
    rows = tensors[0].shape[1]
    ours = run(lambda *x: attention(*x, None, None, None, None, rows, rows, scale), dtype)
    for name, *values in zip(("out", "dq", "dk", "dv"), ours, exact, same, strict=True):
        error_bound(*values, name)


# Each block shape there is: three tiles of keys and a long row, three tiles of width.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [32, 64, 72, 80, 96, 128])
@pytest.mark.parametrize("rows", [1, 49, 64, 128, 197, 256, 257, 1024])
def test_every_block_shape(error_bound, rows, width, dtype) -> None:
    compare(error_bound, fused(3, rows, 2, width, dtype), width**-0.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_longest_row(error_bound, dtype) -> None:
    compare(error_bound, fused(1, 4096, 1, 64, dtype), 0.125)


def test_more_heads_than_a_grid_dimension_holds(error_bound) -> None:
    compare(error_bound, fused(8192, 4, 12, 32, torch.bfloat16), 0.2)


def test_offsets_past_32_bits() -> None:
    """A fused qkv of 2.4e9 elements: the last images are right, and agree with a copy of their own."""
    images, rows, heads, width = 1360, 197, 24, 128
    if torch.cuda.get_device_properties(0).total_memory < 30 * 2**30:
        pytest.skip("needs 30 GB of GPU memory")
    qkv = torch.zeros(images, rows, 3, heads, width, device="cuda", dtype=torch.bfloat16)
    assert qkv.numel() > 2**31
    qkv[-2:].normal_()
    d_out = torch.zeros(images, rows, heads, width, device="cuda", dtype=torch.bfloat16)
    d_out[-2:].normal_()

    def run(qkv: Tensor, d_out: Tensor) -> tuple[Tensor, ...]:
        leaves = tuple(x.detach().requires_grad_() for x in qkv.unbind(2))
        out = attention(*leaves, None, None, None, None, rows, rows, 0.1)
        return out, *torch.autograd.grad(out, leaves, d_out)

    whole, copy = run(qkv, d_out), run(qkv[-2:].clone(), d_out[-2:].clone())
    for name, far, near in zip(("out", "dq", "dk", "dv"), whole, copy, strict=True):
        assert torch.equal(far[-2:], near), name


def test_packed_rows_past_32_bits() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 40 * 2**30:
        pytest.skip("needs 40 GB of GPU memory")
    rows, heads, width = 2**31 // (12 * 64) + 4096, 12, 64
    x = torch.zeros(rows, heads, width, device="cuda", dtype=torch.bfloat16)
    x[-50:].normal_()
    spans = torch.tensor([[0, 3], [rows - 50, 50]], device="cuda", dtype=torch.int32)
    far = attention(x, x, x, spans, None, spans, None, 50, 50, 0.125)[-50:]
    near = x[-50:].clone()
    spans = torch.tensor([[0, 50]], device="cuda", dtype=torch.int32)
    assert torch.equal(far, attention(near, near, near, spans, None, spans, None, 50, 50, 0.125))


@pytest.mark.parametrize("rows", [49, 197, 300])
def test_nothing_waits_for_the_device(rows) -> None:
    q, k, v = fused(4, rows, 2, 64, torch.bfloat16)
    spans = torch.tensor([[0, rows // 2]] * 4, dtype=torch.int32, device="cuda")
    index = torch.stack([torch.randperm(rows, device="cuda") for _ in range(4)]).int()
    arguments = (spans, index, spans, index, rows // 2, rows // 2, 0.125)
    prediction = torch.randn(4, 6, 48, device="cuda", requires_grad=True)
    image, keep = torch.rand(4, 3, 8, 12, device="cuda"), torch.rand(4, 6, device="cuda") > 0.5

    def step() -> None:
        attention(q, k, v, *arguments).sum().backward()
        pixel_mse(prediction, image, None, keep, True, 1e-6).backward()

    step()  # compiling may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("rows", [49, 197, 1024])
def test_gradients_repeat_bit_for_bit(rows) -> None:
    tensors = fused(16, rows, 12, 64, torch.bfloat16)
    d_out = torch.randn_like(tensors[0].contiguous())

    def run() -> tuple[Tensor, ...]:
        out = attention(*tensors, None, None, None, None, rows, rows, 0.125)
        return out, *torch.autograd.grad(out, tensors, d_out)

    first = run()
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.parametrize("dynamic", [False, True])
def test_training_step_compiles_whole(dynamic) -> None:
    """One graph, with the kernels inside, forward and backward."""
    q, k, v = fused(2, 49, 3, 64, torch.bfloat16)
    prediction, image = torch.randn(2, 49, 3 * 64, device="cuda"), torch.rand(2, 3, 56, 56, device="cuda")
    spans = torch.tensor([[0, 20], [0, 0]], dtype=torch.int32, device="cuda")
    index = torch.stack([torch.randperm(49, device="cuda") for _ in range(2)]).int()

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = attention(q * 2, k, v, None, None, spans, index, 49, 20, 0.125)
        return pixel_mse(prediction + out.flatten(2).float(), image, None, None, True, 1e-6)

    eager, compiled = step(q, k, v), torch.compile(step, fullgraph=True, dynamic=dynamic)(q, k, v)
    torch.testing.assert_close(compiled, eager)
    for ours, theirs in zip(
        torch.autograd.grad(compiled, (q, k, v)), torch.autograd.grad(eager, (q, k, v)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_exports() -> None:
    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, None, None, None, None, 49, 49, 0.125)

    tensors = tuple(x.detach() for x in fused(2, 49, 3, 64, torch.float16))
    program = torch.export.export(Model(), tensors)
    assert torch.equal(program.module()(*tensors), Model()(*tensors))


def test_autocast_takes_the_type_in_force() -> None:
    q, k, v = fused(2, 9, 1, 32, torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = attention(q, k, v, None, None, None, None, 9, 9, 0.2)
    assert out.dtype == torch.bfloat16
    assert {x.dtype for x in torch.autograd.grad(out.sum(), (q, k, v))} == {torch.float32}


def test_pixel_error_of_a_real_batch(error_bound) -> None:
    prediction = torch.randn(64, 147, 768, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    image = torch.rand(64, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    index = torch.stack([torch.randperm(196, device="cuda")[:147] for _ in range(64)])

    def plain(prediction: Tensor, image: Tensor) -> Tensor:
        patches = image.unflatten(2, (14, 16)).unflatten(4, (14, 16))
        target = torch.einsum("nchpwq->nhwpqc", patches).flatten(3).flatten(1, 2)
        target = target.gather(1, index[..., None].expand(-1, -1, 768))
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        return (prediction - (target - mean) / (variance + 1e-6).sqrt()).square().mean()

    def run(function, prediction: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = prediction.detach().requires_grad_()
        loss = function(leaf, image)
        return loss, *torch.autograd.grad(loss, leaf)

    exact = run(plain, prediction.double(), image.double())
    same = run(plain, prediction.float(), image)
    ours = run(lambda p, i: pixel_mse(p, i, index, None, True, 1e-6), prediction, image)
    error_bound(ours[0], exact[0], same[0], "loss")
    error_bound(ours[1], exact[1], same[1].bfloat16(), "gradient")


@pytest.mark.parametrize("width", [64, 512])
def test_likelihood_past_32_bits_and_without_a_wait(width) -> None:
    """More than 2^31 elements of hidden: the last rows' losses are those of a copy of their own."""
    rows = 2**31 // width + 1000
    if torch.cuda.get_device_properties(0).total_memory < 30 * 2**30:
        pytest.skip("needs 30 GB of GPU memory")
    hidden = torch.zeros(1, rows, width, device="cuda", dtype=torch.bfloat16)
    hidden[:, -100:].normal_()
    target = torch.randint(0, 256, (1, rows), device="cuda", dtype=torch.uint8)
    weight = torch.randn(256, width, device="cuda", dtype=torch.bfloat16).requires_grad_()

    def run(hidden: Tensor, target: Tensor, summed: bool) -> Tensor:
        given = (hidden, weight, None, target, None, -100, 0.0, 0.0, 0.0, 1.0 if summed else None)
        return pixel_cross_entropy.pixel_cross_entropy(*given)

    near = run(hidden[:, -100:].clone(), target[:, -100:].clone(), False)
    torch.testing.assert_close(run(hidden, target, False)[:, -100:], near)
    run(hidden, target, True).backward()  # compiling may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(hidden, target, True).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
