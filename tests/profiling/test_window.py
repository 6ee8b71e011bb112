"""A window of real operations: their counts beside counts by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from imagen_fast import ops
from imagen_fast.profiling.window import Profiler


def window(step):
    profiler = Profiler()
    step()
    return profiler.finish(1)


def counted(step):
    return sum(op.operations or 0 for op in window(step).ops)


def by_pytorch(step):
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def test_a_linear_layer():
    layer, x = nn.Linear(64, 48), torch.randn(32, 64)
    made = window(lambda: layer(x).sum().backward())
    # Forward, and the gradient of the weight; the input needs none.
    assert sum(op.operations or 0 for op in made.ops) == 2 * (2 * 32 * 64 * 48)
    assert sum(made.timeline.values()) == pytest.approx(made.seconds)
    assert made.launches > 3


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_a_convolution(settings):
    layer, x = nn.Conv2d(3, 8, 3, **settings), torch.randn(2, 3, 17, 19, requires_grad=True)

    def step():
        layer(x).sum().backward()

    assert counted(step) == by_pytorch(step) > 0


def test_a_transposed_convolution():
    layer, x = nn.ConvTranspose2d(4, 6, 3, stride=2), torch.randn(2, 4, 9, 7, requires_grad=True)

    def step():
        layer(x).sum().backward()

    assert counted(step) == by_pytorch(step) > 0


def test_attention_of_pytorch_counts_the_scores_twice():
    q, k, v = (torch.randn(2, 3, 20, 16, requires_grad=True) for _ in range(3))
    made = window(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    product = 2 * 2 * 3 * 20 * 20 * 16
    assert sum(op.operations or 0 for op in made.ops) == 7 * product
    assert sum(op.model_operations or 0 for op in made.ops) == 6 * product


def test_attention_of_ours():
    q, k, v = (torch.randn(2, 20, 3, 16, requires_grad=True) for _ in range(3))
    context = ops.Visible.in_place(torch.zeros(2, 20, dtype=torch.bool))
    made = window(lambda: ops.masked_patch_attention(q, k, v, context).sum().backward())
    product = 2 * 2 * 3 * 20 * 20 * 16
    assert sum(op.operations or 0 for op in made.ops) == 7 * product
    assert sum(op.model_operations or 0 for op in made.ops) == 6 * product
    assert any("masked_patch_attention" in op.name for op in made.ops)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_makes_the_forward_pass_again(reentrant):
    layer, x = nn.Linear(64, 64), torch.randn(32, 64, requires_grad=True)
    made = window(lambda: checkpoint(layer, x, use_reentrant=reentrant).sum().backward())
    product = 2 * 32 * 64 * 64
    assert sum(op.operations or 0 for op in made.ops) == 4 * product
    assert sum(op.model_operations or 0 for op in made.ops) == 3 * product


def test_half_types_are_told():
    layer, x = nn.Linear(64, 48), torch.randn(32, 64)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)

    assert {op.dtype for op in window(step).ops if op.operations} == {"bfloat16"}


def test_bytes():
    a, b = torch.randn(256, 128), torch.randn(128, 64)
    made = {op.name: op for op in window(lambda: (a @ b, a + a, a.add_(1), a.t())).ops}
    assert made["aten::mm"].bytes == 4 * (256 * 128 + 128 * 64 + 256 * 64)
    assert made["aten::add"].bytes == 4 * 3 * 256 * 128
    assert made["aten::add_"].bytes == 4 * 256 * 128
    assert made["aten::t"].bytes is None


def test_work_without_a_formula_is_work():
    parts = [torch.randn(512, 512) for _ in range(4)]

    def step():
        for _ in range(10):
            torch.cat(parts).sum()

    made = window(step)
    assert made.timeline["memory"] > 0.5 * made.seconds


def test_a_fused_update_is_the_optimisers():
    layer = nn.Linear(2048, 2048)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.randn(1, 2048)).sum().backward()
    optimizer.step()
    made = window(optimizer.step)
    assert made.timeline["optimizer"] > 0.3 * made.seconds


def test_more_than_can_be_read_is_refused(monkeypatch):
    monkeypatch.setattr("imagen_fast.profiling.window._MOST_EVENTS", 10)
    with pytest.raises(
        RuntimeError, match=r"events in 1 steps are more than are read: a smaller --window has fewer"
    ):
        window(lambda: [torch.zeros(1) + 1 for _ in range(20)])


def test_one_profiler_at_a_time():
    with torch.profiler.profile(), pytest.raises(RuntimeError, match=r"uses torch\.profiler itself"):
        Profiler()
    Profiler().drop()
