"""The fused masked-pixel error against its definition in float64."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import reference

EPS = 1e-6
# Patch side, channels, image: the usual, one channel, a single pixel a row, odd sides, many channels.
SHAPES = [(16, 3, 64, 48), (7, 1, 21, 14), (1, 4, 5, 3), (5, 3, 15, 10), (2, 2, 8, 8), (3, 9, 6, 9)]
TYPES = [torch.float32, torch.bfloat16]


def problem(patch, channels, height, width, use, dtype, image_dtype=torch.float32, batch=3):
    torch.manual_seed(patch * channels + height)
    patches = (height // patch) * (width // patch)
    rows = patches if use != "index" else max(1, patches * 2 // 3)
    prediction = torch.randn(batch, rows, patch * patch * channels).to(dtype)
    image = torch.randn(batch, channels, height, width).add(0.5).to(image_dtype)
    index = torch.stack([torch.randperm(patches)[:rows] for _ in range(batch)]) if use == "index" else None
    keep = torch.rand(batch, rows) < 0.6 if use == "keep" else None
    return prediction, image, index, keep


def by_definition(prediction, image, hidden, normalise, dtype):
    prediction = prediction.detach().to(dtype).requires_grad_()
    loss = reference.masked_pixel_mse(prediction, image.to(dtype), hidden, normalise, EPS)
    (gradient,) = torch.autograd.grad(loss, prediction)
    return loss.detach(), gradient


@pytest.mark.parametrize("use", ["index", "keep", "all"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient(shape, dtype, normalise, use, instruction_set, error_bound, poisoned_memory):
    normalise = normalise and shape[0] * shape[1] > 4  # over a handful of values the statistics are noise
    prediction, image, index, keep = problem(*shape, use, dtype)
    hidden = index if keep is None else keep
    exact, exact_gradient = by_definition(prediction, image, hidden, normalise, torch.float64)
    peer, peer_gradient = by_definition(prediction, image, hidden, normalise, torch.float32)
    loss, rows = native.masked_pixel_mse_forward(prediction, image, index, keep, normalise, EPS)
    gradient = native.masked_pixel_mse_backward(1.0, prediction, image, index, keep, normalise, EPS)
    assert loss.dtype == rows.dtype == torch.float32
    assert gradient.dtype == dtype
    error_bound(loss, exact, peer, "loss")
    error_bound(gradient, exact_gradient, peer_gradient.to(dtype), "gradient")
    if keep is not None:
        assert not rows[~keep].any()
        assert not gradient[~keep].any()


@pytest.mark.parametrize("image_dtype", TYPES)
def test_any_strides(image_dtype, error_bound):
    """Views that are not contiguous give what their copies give, bit for bit."""
    prediction, image, index, _ = problem(4, 3, 16, 16, "index", torch.float32, image_dtype)
    wide = torch.randn(*prediction.shape[:2], prediction.shape[2] + 5)
    wide[..., 3:-2] = prediction
    channels_last = image.contiguous(memory_format=torch.channels_last)
    mirrored = image.transpose(2, 3).contiguous().transpose(2, 3)
    assert mirrored.stride() != image.stride()
    arguments = (index, None, True, EPS)
    expected = native.masked_pixel_mse_forward(prediction, image, *arguments)
    for p, i in [(wide[..., 3:-2], image), (prediction, channels_last), (prediction, mirrored)]:
        assert torch.equal(native.masked_pixel_mse_forward(p, i, *arguments)[1], expected[1])
        there = native.masked_pixel_mse_backward(0.3, p, i, *arguments)
        assert torch.equal(there, native.masked_pixel_mse_backward(0.3, prediction, image, *arguments))


def test_integers_of_any_width():
    prediction, image, index, _ = problem(4, 3, 16, 16, "index", torch.float32)
    losses = [
        native.masked_pixel_mse_forward(prediction, image, index.to(t), None, True, EPS)[0]
        for t in (torch.uint8, torch.int32, torch.int64)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_the_same_bits_at_any_number_of_threads(thread_count):
    prediction, image, _, keep = problem(8, 3, 64, 64, "keep", torch.bfloat16)
    results = []
    for threads in (1, 2, 5):
        thread_count(threads)
        loss, rows = native.masked_pixel_mse_forward(prediction, image, None, keep, True, EPS)
        gradient = native.masked_pixel_mse_backward(1.0, prediction, image, None, keep, True, EPS)
        results.append((loss, rows, gradient))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_rows_that_do_not_count_are_never_read():
    prediction, image, _, keep = problem(4, 3, 16, 16, "keep", torch.float32)
    clean = native.masked_pixel_mse_forward(prediction, image, None, keep, True, EPS)[0]
    prediction[~keep] = float("nan")
    for b, m in (~keep).nonzero().tolist():
        top, left = m // 4 * 4, m % 4 * 4
        image[b, :, top : top + 4, left : left + 4] = float("nan")
    assert native.masked_pixel_mse_forward(prediction, image, None, keep, True, EPS)[0] == clean
    assert native.masked_pixel_mse_backward(1.0, prediction, image, None, keep, True, EPS).isfinite().all()


def test_nothing_hidden_and_no_images():
    prediction, image, _, keep = problem(4, 3, 16, 16, "keep", torch.float32)
    none = torch.zeros_like(keep)
    assert native.masked_pixel_mse_forward(prediction, image, None, none, True, EPS)[0] == 0
    assert not native.masked_pixel_mse_backward(1.0, prediction, image, None, none, True, EPS).any()
    assert native.masked_pixel_mse_forward(prediction[:0], image[:0], None, None, True, EPS)[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, i, x: (p.double(), i, x), "float32 or bfloat16"),
        (lambda p, i, x: (p[:, :, :-1], i, x), "values a row"),
        (lambda p, i, x: (p, i[:, :, :-1], x), "must divide"),
        (lambda p, i, x: (p, i, x + 16), "outside the image's patches"),
        (lambda p, i, x: (p, i, x - 16), "outside the image's patches"),
        (lambda p, i, x: (p, i, x[:, 1:]), "index must be"),
        (lambda p, i, x: (p, i, x.float()), "index must be integer"),
        (lambda p, i, x: (p.to("meta"), i, x), "on the CPU"),
    ],
)
def test_bad_arguments_are_named(change, message):
    prediction, image, index, _ = problem(4, 3, 16, 16, "index", torch.float32)
    prediction, image, index = change(prediction, image, index)
    with pytest.raises(InvalidInput, match=message):
        native.masked_pixel_mse_forward(prediction, image, index, None, True, EPS)
