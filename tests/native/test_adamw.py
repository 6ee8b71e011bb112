"""The fused AdamW against torch.optim.AdamW, and the gradients' norm."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import native
from imagen_fast.errors import InvalidInput
from imagen_fast.native import AdamwParameter

# Odd, empty, a chunk's edge, and more than one chunk.
SIZES = [1, 7, 0, 64, 1000, 65536, 65537, 150001]
BETAS, EPS = (0.9, 0.95), 1e-8


def state(dtype, seed=0):
    torch.manual_seed(seed)
    master = [torch.randn(n) for n in SIZES]
    weight = [m.to(dtype) for m in master] if dtype != torch.float32 else [None] * len(SIZES)
    return master, [torch.zeros(n) for n in SIZES], [torch.zeros(n) for n in SIZES], weight


def rates(i):
    """Each parameter its own."""
    return {"lr": 1e-3 * (i + 1), "weight_decay": 0.05 * (i % 2)}


def gradients(dtype, step):
    torch.manual_seed(100 + step)
    return [torch.randn(n).mul(0.1).to(dtype) for n in SIZES]


def run(dtype, steps=5, scale=1.0):
    master, exp_avg, exp_avg_sq, weight = state(dtype)
    for step in range(1, steps + 1):
        lists = zip(gradients(dtype, step), master, exp_avg, exp_avg_sq, weight, strict=True)
        parameters = [AdamwParameter(*tensors, **rates(i)) for i, tensors in enumerate(lists)]
        native.adamw_step(
            parameters, step=step, beta1=BETAS[0], beta2=BETAS[1], eps=EPS, gradient_scale=scale
        )
    return master, exp_avg, exp_avg_sq, weight


def by_torch(dtype, steps=5, scale=1.0, wide=torch.float32):
    parameters = [m.to(wide).requires_grad_() for m in state(dtype)[0]]
    groups = [{"params": [p], **rates(i)} for i, p in enumerate(parameters)]
    optimiser = torch.optim.AdamW(groups, betas=BETAS, eps=EPS, fused=wide == torch.float32, foreach=False)
    for step in range(1, steps + 1):
        for p, g in zip(parameters, gradients(dtype, step), strict=True):
            p.grad = g.to(wide) * scale
        optimiser.step()
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_five_steps_equal_torch(dtype, scale, instruction_set):
    master, _, _, weight = run(dtype, scale=scale)
    for ours, theirs, exact in zip(
        master, by_torch(dtype, scale=scale), by_torch(dtype, scale=scale, wide=torch.float64), strict=True
    ):
        # A few roundings of the value itself: five steps each add one.
        torch.testing.assert_close(ours, theirs, rtol=5e-7, atol=5e-7)
        if len(ours):
            error, peer = (ours - exact).abs().max(), (theirs - exact).abs().max()
            assert error <= 2 * peer + 1.2e-7
    if dtype == torch.bfloat16:
        assert all(torch.equal(w, m.bfloat16()) for w, m in zip(weight, master, strict=True))


def test_rounding_of_the_working_weight():
    """Nearest, ties to even, past the largest to infinity, NaN stays: as torch rounds."""
    values = torch.tensor([0.0, -0.0, 1.00390625, 1.01171875, 3.4e38, -3.4e38, 1e-40, float("nan")])
    master, weight = values.clone(), torch.zeros(len(values), dtype=torch.bfloat16)
    zeros = [torch.zeros(len(values)) for _ in range(3)]
    parameter = AdamwParameter(zeros[0], master, zeros[1], zeros[2], weight, lr=0.0, weight_decay=0.0)
    native.adamw_step([parameter], step=1, beta1=0.9, beta2=0.95, eps=EPS)
    torch.testing.assert_close(weight, values.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_a_weight_that_is_its_own_master():
    master = torch.ones(10)
    alias = AdamwParameter(torch.ones(10), master, torch.zeros(10), torch.zeros(10), master, 0.1, 0.0)
    native.adamw_step([alias], step=1, beta1=0.9, beta2=0.95, eps=EPS)
    torch.testing.assert_close(master, torch.full((10,), 0.9))


def test_the_same_bits_at_any_number_of_threads(thread_count):
    results = []
    for threads in (1, 2, 5):
        thread_count(threads)
        results.append((run(torch.bfloat16, steps=2)[0], native.gradient_norm(gradients(torch.bfloat16, 1))))
    for masters, norm in results[1:]:
        assert norm == results[0][1]
        assert all(torch.equal(a, b) for a, b in zip(masters, results[0][0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_norm(dtype, instruction_set):
    values = gradients(dtype, 1)
    exact = torch.cat([g.double() for g in values]).norm().item()
    assert native.gradient_norm(values) == pytest.approx(exact, rel=1e-12)
    assert native.gradient_norm([]) == 0
    values[0][0] = float("nan")
    assert native.gradient_norm(values) != native.gradient_norm(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": torch.zeros(4)}, "must have 4 values"),
        ({"gradient": torch.zeros(8, dtype=torch.float64)}, "float32 or bfloat16"),
        ({"master": torch.zeros(8).bfloat16()}, "master weight must be torch.float32"),
        ({"weight": torch.zeros(8)}, "with a master must be torch.bfloat16"),
        ({"exp_avg": torch.zeros(16)[::2]}, "contiguous"),
        ({"exp_avg_sq": torch.zeros(8, device="meta")}, "on the CPU"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = AdamwParameter(*(torch.zeros(8) for _ in range(4)), None, 0.1, 0.0)
    with pytest.raises(InvalidInput, match=message):
        native.adamw_step([good._replace(**change)], step=1, beta1=0.9, beta2=0.95, eps=EPS)


def test_the_step_counts_from_one():
    with pytest.raises(InvalidInput, match="from 1"):
        native.adamw_step([], step=0, beta1=0.9, beta2=0.95, eps=EPS)
