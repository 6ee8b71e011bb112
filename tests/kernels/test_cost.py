"""Occupancy and least times, against numbers worked out by hand."""

from functools import partial

import pytest
import torch

from imagen_fast.kernels import (
    causal_pixel_attention,
    causal_pixel_softmax,
    chips,
    cost,
    launch,
    masked_patch_attention,
    masked_pixel_mse,
    pixel_cross_entropy,
)

needs_triton = pytest.mark.skipif(not launch.INSTALLED, reason="launches name Triton kernels")
CHIPS = {chip.name: chip for chip in chips.CHIPS}


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "capability", "programs", "limit"),
    [
        (32, 4, 0, 80, 16, "registers"),  # 64 warps: everything is full at once
        (16, 4, 0, 80, 16, "warps"),
        (16, 1, 0, 90, 32, "warps"),  # no more than 32 programs
        (128, 8, 0, 90, 2, "registers"),  # 16 warps of 4096 registers
        (129, 8, 0, 90, 1, "registers"),  # 4352 each: 15 warps, in fours 12
        (255, 4, 0, 90, 2, "registers"),  # 8 warps of 8192
        (32, 4, 100 * 1024, 80, 1, "shared"),
        (32, 4, 100 * 1024, 90, 2, "shared"),
        (32, 4, 227 * 1024, 90, 1, "shared"),  # with the system's kilobyte all there is
    ],
)
def test_occupancy(registers, warps, shared, capability, programs, limit) -> None:
    found = chips.occupancy(registers, warps, shared, capability)
    assert (found.programs, found.warps, found.limit) == (programs, programs * warps, limit)


def test_peaks_agree_with_each_other() -> None:
    """Operations a clock and multiprocessor are a power of two, so clock, count and peak must fit."""
    for chip in chips.CHIPS:
        a_clock = {80: 2048, 90: 4096, 100: 8192}[chip.capability]
        assert chip.multiprocessors * a_clock * chip.clock == pytest.approx(chip.half, rel=2e-3)
    assert CHIPS["H200"].exponentials == pytest.approx(3.87e12, rel=1e-2)


def recorded(run) -> list[launch.Launch]:
    with launch.recording(90) as launches:
        run()
    return launches


def qkv(rows: int, width: int = 64, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, ...]:
    return torch.empty((2, rows, 3, 12, width), dtype=dtype, device="meta").unbind(2)


# 256 images of 12 heads of width 64 in bf16, as in the tables of the design.
@needs_triton
@pytest.mark.parametrize(
    ("rows", "megabytes", "memory", "matrix"), [(49, 77, 16, 2), (197, 310, 65, 31), (1024, 1611, 336, 834)]
)
def test_the_forward_has_the_work_of_the_formula(rows, megabytes, memory, matrix) -> None:
    arguments = (*qkv(rows), *(None,) * 4, rows, rows, 0.1)
    (launched,) = recorded(partial(masked_patch_attention.run_forward, *arguments))
    work = cost.work(launched)
    heads = cost.IMAGES * 12
    assert work == cost.Work(4 * rows * 64 * 2 * heads, 4 * rows * rows * 64 * heads, rows * rows * heads)
    assert work.bytes / 1e6 == pytest.approx(megabytes, abs=0.6)
    seconds, what = cost.least_time(work, CHIPS["H200"], half=True)
    expected = {
        "memory": memory,
        "matrix": matrix,
        "exp": rows * rows * heads / CHIPS["H200"].exponentials * 1e6,
    }
    assert what == max(expected, key=lambda name: expected[name])
    assert seconds * 1e6 == pytest.approx(expected[what], abs=0.6)


@needs_triton
@pytest.mark.parametrize("rows", [49, 197, 1024])
def test_a_backward_makes_five_products_and_what_it_makes_again(rows) -> None:
    d_out = torch.empty((2, rows, 12, 64), dtype=torch.bfloat16, device="meta")
    arguments = (d_out, *qkv(rows), *(None,) * 4, rows, rows, 0.1)
    works = [cost.work(one) for one in recorded(partial(masked_patch_attention.run_backward, *arguments))]
    product = 2 * rows * rows * 64 * cost.IMAGES * 12
    assert sum(work.operations for work in works) // product in {49: [5], 197: [7], 1024: [9]}[rows]
    tensor = rows * 64 * 2 * cost.IMAGES * 12
    assert sum(work.bytes for work in works) >= 7 * tensor


@needs_triton
def test_the_gradient_of_a_bias_makes_logits_and_their_gradient_once_more() -> None:
    d_out = torch.empty((2, 49, 12, 64), dtype=torch.bfloat16, device="meta")
    bias = torch.empty((12, 49, 49), dtype=torch.bfloat16, device="meta")
    arguments = (d_out, *qkv(49), *(None,) * 4, 49, 49, 0.1, None, None, bias, None, None, True)
    launches = recorded(partial(masked_patch_attention.run_backward, *arguments))
    works = {one.kernel.fn.__name__: cost.work(one) for one in launches}
    product = 2 * 49 * 49 * 64 * cost.IMAGES * 12
    made = {name: work.operations // product for name, work in works.items()}
    assert made == {"attention_backward_short": 5, "attention_backward_bias": 2}


@needs_triton
def test_fp32_products_are_on_other_units() -> None:
    arguments = (*qkv(1024, dtype=torch.float32), *(None,) * 4, 1024, 1024, 0.1)
    (launched,) = recorded(partial(masked_patch_attention.run_forward, *arguments))
    work = cost.work(launched)
    seconds, what = cost.least_time(work, CHIPS["H100 SXM"], half=False)
    assert what == "fp32"
    assert seconds == pytest.approx(work.operations / 66.9e12)


@needs_triton
def test_listed_rows_are_on_the_device() -> None:
    spans = torch.empty((2, 2), dtype=torch.int32, device="meta")
    arguments = (*qkv(49), spans, None, spans, None, 49, 49, 0.1)
    (launched,) = recorded(partial(masked_patch_attention.run_forward, *arguments))
    assert cost.work(launched) is None


@needs_triton
def test_the_pixel_error_reads_prediction_and_image_once() -> None:
    prediction = torch.empty((2, 196, 768), dtype=torch.bfloat16, device="meta")
    image = torch.empty((2, 3, 224, 224), device="meta")
    run = partial(masked_pixel_mse.run_forward, prediction, image, None, None, True, 1e-6)
    (launched,) = recorded(run)
    assert cost.work(launched).bytes == cost.IMAGES * 196 * 768 * (2 + 4)


# Of 32x32 pixels: all earlier ones, and those of the quadrant.
@needs_triton
@pytest.mark.parametrize(("right", "seen"), [(32, 1024 * 1025 // 2), (0, (32 * 33 // 2) ** 2)])
def test_causal_kernels_have_the_work_of_the_pairs_that_see_each_other(right, seen) -> None:
    window = (32, 32, 32, 32, right, 0)
    q, k, v = qkv(1024)
    heads, tensor, row = cost.IMAGES * 12, 1024 * 64 * 2, 1024 * 4
    (forward,) = recorded(partial(causal_pixel_attention.run_forward, q, k, v, *window, 0.1))
    assert cost.work(forward) == cost.Work(
        heads * (4 * tensor + 2 * row), heads * 4 * seen * 64, heads * seen
    )
    out, statistics = torch.empty_like(q), torch.empty((2, 12, 2, 1024), device="meta")
    backward = partial(causal_pixel_attention.run_backward, out, q, k, v, out, statistics, *window, 0.1)
    works = [cost.work(one) for one in recorded(backward)]
    assert sum(work.operations for work in works) == heads * 7 * 2 * seen * 64
    assert sum(work.exponentials for work in works) == heads * 2 * seen
    assert sum(work.bytes for work in works) == heads * (12 * tensor + 6 * row)

    scores = torch.empty((2, 1024, 1024), dtype=torch.bfloat16, device="meta")
    (softmax,) = recorded(partial(causal_pixel_softmax.run_forward, scores, *window))
    work = cost.work(softmax)
    assert work.bytes == cost.IMAGES * 2 * (seen + 1024**2)
    assert work.exponentials == cost.IMAGES * seen
    (softmax,) = recorded(partial(causal_pixel_softmax.run_backward, scores, scores, *window))
    assert cost.work(softmax).bytes == cost.IMAGES * 2 * (2 * seen + 1024**2)


@needs_triton
def test_pixel_cross_entropy_in_one_pass_has_the_work_of_its_formula() -> None:
    """MAE's pixels: 28.9 million rows, whose products take 2.9 ms of an H200 at the least."""
    name, run = next(iter(pixel_cross_entropy.aot_launches()))
    (launched,) = recorded(run)
    work, rows = cost.work(launched), 256 * 147 * 768
    assert name == "V=256 E=64 bfloat16"
    assert work == cost.Work(rows * (2 * 64 * 2 + 1), 6 * rows * 256 * 64, rows * 256)
    seconds, what = cost.least_time(work, CHIPS["H200"], half=True)
    assert what == "matrix"
    assert seconds == pytest.approx(2.87e-3, rel=1e-2)
