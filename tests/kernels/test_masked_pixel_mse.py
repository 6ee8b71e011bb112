"""The masked pixel error against MAE's formula on patches that exist, in float64."""

from math import isqrt

import pytest
import torch
from torch import Tensor

from imagen_fast.kernels import masked_pixel_mse as kernels

op = torch.ops.imagen_fast.masked_pixel_mse_triton


def definition(
    prediction: Tensor, image: Tensor, index: Tensor | None, keep: Tensor | None, normalise: bool, eps: float
) -> Tensor:
    side = isqrt(prediction.shape[-1] // image.shape[1])
    down, across = image.shape[2] // side, image.shape[3] // side
    patches = image.unflatten(2, (down, side)).unflatten(4, (across, side))
    target = torch.einsum("nchpwq->nhwpqc", patches).flatten(3).flatten(1, 2)
    if index is not None:
        target = target.gather(1, index.long()[..., None].expand(-1, -1, target.shape[-1]))
    if normalise:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + eps).sqrt()
    rows = (prediction - target).square().mean(-1)
    if keep is None:
        return rows.mean()
    return torch.where(keep, rows, 0).sum() / keep.sum().clamp(min=1)


def problem(
    device: str, dtype: torch.dtype, images=2, channels=3, grid=(2, 3), side=4
) -> tuple[Tensor, Tensor]:
    torch.manual_seed(side)
    rows = grid[0] * grid[1]
    prediction = torch.randn(images, rows, side * side * channels).to(device, dtype)
    return prediction, torch.rand(images, channels, grid[0] * side, grid[1] * side).to(device, dtype)


def compare(error_bound, prediction, image, index=None, keep=None, normalise=True, eps=1e-6) -> Tensor:
    def both(function, dtype) -> tuple[Tensor, Tensor]:
        leaf = prediction.detach().to(dtype).requires_grad_()
        loss = function(leaf, image.to(dtype), index, keep, normalise, eps)
        return loss, *torch.autograd.grad(loss * 3, leaf)

    exact, same = both(definition, torch.float64), both(definition, prediction.dtype)
    loss, gradient = both(op, prediction.dtype)
    assert loss.dtype == torch.float32
    error_bound(loss, exact[0], same[0].float(), "loss")
    error_bound(gradient, exact[1], same[1], "gradient")
    return gradient


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    ("images", "channels", "grid", "side"),
    [(2, 3, (2, 3), 16), (1, 1, (1, 1), 4), (3, 4, (5, 1), 7), (2, 3, (2, 2), 1)],
)
def test_every_patch_counts(error_bound, target, images, channels, grid, side, normalise) -> None:
    compare(error_bound, *problem(*target, images, channels, grid, side), normalise=normalise)


@pytest.mark.parametrize("kept", ["some", "none", "one", "all"])
def test_kept_patches_count(error_bound, target, kept) -> None:
    prediction, image = problem(*target)
    keep = torch.zeros(2, 6, dtype=torch.bool, device=target[0])
    keep[1, 3] = kept == "one"
    keep |= (torch.rand(2, 6, device=target[0]) > 0.5) & (kept == "some") | (kept == "all")
    prediction = torch.where(keep[..., None], prediction, torch.nan) if kept == "some" else prediction
    leaf = prediction.detach().requires_grad_()
    loss = op(leaf, image, None, keep, True, 1e-6)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert (gradient[~keep] == 0).all(), "a patch that does not count has a gradient"
    compare(error_bound, prediction.nan_to_num(), image, keep=keep)
    clean = op(prediction.nan_to_num(), image, None, keep, True, 1e-6)
    assert torch.equal(loss, clean), "what does not count changes the loss"
    if kept == "none":
        assert loss == 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_listed_patches(error_bound, target, dtype) -> None:
    prediction, image = problem(*target)
    index = torch.tensor([[5, 0, 2], [1, 3, 4]], dtype=dtype, device=target[0])
    compare(error_bound, prediction[:, 1:4], image, index=index)


def test_no_row(device) -> None:
    prediction, image = problem(device, torch.float32)
    leaf = prediction[:, :0].detach().requires_grad_()
    loss = op(leaf, image, torch.zeros(2, 0, dtype=torch.int64, device=device), None, True, 1e-6)
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert loss == 0
    assert gradient.shape == leaf.shape


def test_strides(error_bound, target) -> None:
    prediction, image = problem(*target)
    wide = torch.stack((prediction, prediction + 1), -2).flatten(2)[..., : prediction.shape[-1]]
    channels_last = image.to(memory_format=torch.channels_last)
    compare(error_bound, wide, channels_last)
    compare(error_bound, prediction.transpose(0, 1).contiguous().transpose(0, 1), image.transpose(2, 3))


def test_flat_patch_is_finite(device) -> None:
    """A patch of one colour has no variance: eps alone divides."""
    prediction, image = problem(device, torch.float32)
    loss = op(prediction, torch.full_like(image, 0.7), None, None, True, 1e-6)
    torch.testing.assert_close(loss, prediction.square().mean(), rtol=1e-3, atol=0)


def test_runs_repeat(device) -> None:
    prediction, image = problem(device, torch.float32, images=5)
    assert torch.equal(*(op(prediction, image, None, None, True, 1e-6) for _ in range(2)))


def test_op_obeys_the_rules_of_its_registration(device) -> None:
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    prediction, image = problem(device, torch.float32)
    keep = torch.rand(2, 6, device=device) > 0.5
    index = torch.tensor([[5, 0, 2], [1, 3, 4]], device=device)
    leaf = prediction.requires_grad_()
    torch.library.opcheck(op, (leaf, image, None, keep, True, 1e-6), test_utils=tests)
    torch.library.opcheck(op, (leaf[:, :3], image, index, None, False, 1e-6), test_utils=tests)


def test_compiles_without_a_graph_break(device) -> None:
    prediction, image = problem(device, torch.float32)
    compiled = torch.compile(
        lambda prediction, image: op(prediction * 2, image, None, None, True, 1e-6),
        fullgraph=True,
        backend="inductor" if device == "cuda" else "aot_eager",
    )
    torch.testing.assert_close(compiled(prediction, image), op(prediction * 2, image, None, None, True, 1e-6))


def test_refusals_say_why(device) -> None:
    prediction, image = problem(device, torch.float32)
    index = torch.zeros(2, 6, dtype=torch.int64, device=device)
    assert kernels.supports(prediction, image) is None
    assert kernels.supports(prediction, image, index) is None
    assert "float64" in kernels.supports(prediction.double(), image)
    assert "3 rows for 6 patches" in kernels.supports(prediction[:, :3], image)
    assert "both given" in kernels.supports(prediction, image, index, index.bool())
    assert "P divides" in kernels.supports(prediction[..., :-1], image)
    assert "bool" in kernels.supports(prediction, image, None, index)
