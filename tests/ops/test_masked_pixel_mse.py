from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import ops
from imagen_fast.errors import BackendUnavailable, InvalidInput
from imagen_fast.ops.patches import chosen_patches, patchify, unpatchify

# (images, channels, height, width, patch): odd, one patch, one channel, oblong, the usual.
SIZES = ((3, 3, 10, 15, 5), (2, 1, 2, 2, 2), (1, 1, 8, 8, 2), (2, 5, 6, 4, 2), (2, 3, 32, 48, 16))
DTYPES = (torch.float32, torch.bfloat16)


def make_case(size, hidden, dtype, seed=0):
    images, channels, height, width, patch = size
    draw = torch.Generator().manual_seed(seed)
    patches = (height // patch) * (width // patch)
    # A view with every stride unusual, as from a channels-last loader.
    image = torch.randn(images, width, height, channels, generator=draw).permute(0, 3, 2, 1)
    chosen, rows = None, patches
    if hidden == "bool":
        chosen = torch.rand(images, patches, generator=draw) < 0.7
        chosen[0], chosen[-1, 0] = False, True  # an image with nothing hidden, where there are two
    elif hidden == "listed":
        rows = max(1, patches // 2)
        chosen = torch.rand(images, patches, generator=draw).argsort(1)[:, :rows]
    prediction = torch.randn(images, rows, patch * patch * channels, generator=draw).to(dtype)
    return prediction, image, chosen


def outcome(prediction, image, hidden, normalise, backend, dtype):
    prediction = prediction.to(dtype, copy=True).requires_grad_()
    image = image.to(torch.float64) if dtype == torch.float64 else image
    loss = ops.masked_pixel_mse(prediction, image, hidden, normalise=normalise, backend=backend)
    (loss * 3).backward()
    return loss.detach(), prediction.grad


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("hidden", ["all", "bool", "listed"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_is_within_the_error_bound(size, hidden, normalise, dtype, error_bound, poisoned_memory):
    prediction, image, chosen = make_case(size, hidden, dtype)
    exact = outcome(prediction, image, chosen, normalise, "reference", torch.float64)
    peer = outcome(prediction, image, chosen, normalise, "reference", dtype)
    ours = outcome(prediction, image, chosen, normalise, "cpu", dtype)
    assert ours[0].dtype == torch.float32
    assert ours[1].dtype == dtype
    for name, a, e, p in zip(("loss", "gradient"), ours, exact, peer, strict=True):
        error_bound(a, e, p, name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_nothing_hidden_is_zero_with_zero_gradients(backend):
    prediction = torch.randn(2, 4, 12, requires_grad=True)
    loss = ops.masked_pixel_mse(
        prediction, torch.randn(2, 3, 4, 4), torch.zeros(2, 4, dtype=torch.bool), backend=backend
    )
    loss.backward()
    assert loss.item() == 0.0
    assert bool((prediction.grad == 0).all())


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_rows_that_do_not_count_are_never_read(backend):
    hidden = torch.tensor([[True, False, True, False]])
    prediction = torch.randn(1, 4, 12)
    prediction[~hidden] = float("nan")
    prediction.requires_grad_()
    loss = ops.masked_pixel_mse(prediction, torch.randn(1, 3, 4, 4), hidden, backend=backend)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool((prediction.grad[~hidden] == 0).all())


def test_listed_equals_bool():
    image, prediction = torch.randn(2, 3, 8, 8), torch.randn(2, 16, 12)
    listed = torch.stack([torch.randperm(16)[:5] for _ in range(2)])
    hidden = torch.zeros(2, 16, dtype=torch.bool).scatter_(1, listed, True)
    rows = prediction.gather(1, listed[..., None].expand(-1, -1, 12))
    torch.testing.assert_close(
        ops.masked_pixel_mse(rows, image, listed), ops.masked_pixel_mse(prediction, image, hidden)
    )


def test_the_image_gets_its_gradient():
    prediction, image, hidden = make_case(SIZES[4], "listed", torch.float32)
    image.requires_grad_()
    ops.masked_pixel_mse(prediction, image, hidden).backward()
    assert image.grad.abs().sum() > 0
    with pytest.raises(BackendUnavailable, match="no gradient to the image"):
        ops.masked_pixel_mse(prediction, image, hidden, backend="cpu")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_no_images_is_zero(backend):
    assert ops.masked_pixel_mse(torch.zeros(0, 4, 12), torch.zeros(0, 3, 4, 4), backend=backend).item() == 0.0


def test_gradcheck():
    prediction, image, hidden = make_case(SIZES[0], "bool", torch.float64)
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: ops.masked_pixel_mse(p, image.double(), hidden, backend="reference"), prediction
    )


@pytest.mark.parametrize("hidden", ["all", "bool", "listed"])
def test_opcheck(hidden):
    prediction, image, chosen = make_case(SIZES[0], hidden, torch.float32)
    listed = hidden == "listed"
    torch.library.opcheck(
        torch.ops.imagen_fast.masked_pixel_mse_cpu,
        (
            prediction.requires_grad_(),
            image,
            chosen if listed else None,
            None if listed else chosen,
            True,
            1e-6,
        ),
    )


def test_compiles_in_one_graph():
    prediction, image, chosen = make_case(SIZES[4], "listed", torch.float32)
    compiled = torch.compile(ops.masked_pixel_mse, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(prediction, image, chosen), ops.masked_pixel_mse(prediction, image, chosen)
    )


def test_operations_are_counted():
    prediction, image, _ = make_case(SIZES[4], "all", torch.float32)
    with FlopCounterMode(display=False) as counter:
        ops.masked_pixel_mse(prediction, image, backend="cpu")
    assert counter.get_total_flops() == 0  # by convention only matrix products count


def test_patchify_is_the_order_of_mae_and_undone_by_unpatchify():
    image = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[0, 1].tolist() == [
        image[0, c, y, 2 + x].item() for y in (0, 1) for x in (0, 1) for c in range(3)
    ]
    assert torch.equal(unpatchify(patches, 2, 4, 6), image)
    assert torch.equal(chosen_patches(image, 2, torch.tensor([[5, 0], [1, 1]]))[0, 0], patches[0, 5])


@pytest.mark.parametrize(
    ("prediction", "image", "hidden", "message"),
    [
        ((1, 4, 12), (1, 3, 4), None, "must be"),
        ((1, 4, 13), (1, 3, 4, 4), None, "whole patch side"),
        ((1, 16, 1), (1, 1, 4, 4), None, "no variance"),
        ((1, 4, 12), (1, 3, 5, 4), None, "does not divide an image of 5x4"),
        ((1, 3, 12), (1, 3, 4, 4), None, "a row for each of the 4 patches"),
        ((1, 2, 12), (1, 3, 4, 4), torch.tensor([[0, 4]]), "patches 0 to 3, not 4"),
        ((1, 2, 12), (1, 3, 4, 4), torch.tensor([[0.0, 1.0]]), "bool or integer"),
        ((1, 2, 12), (1, 3, 4, 4), torch.tensor([[0]]), "one entry a row"),
    ],
)
def test_bad_input_is_one_sentence(prediction, image, hidden, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        ops.masked_pixel_mse(torch.randn(prediction), torch.randn(image), hidden)
    assert "\n" not in str(caught.value)
