"""`accelerate`: GELU, exact and quick, which ours serves in bf16 on the CPU."""

import pytest
import torch
from small_models import step_of
from torch import nn

import imagen_fast
from imagen_fast import native
from imagen_fast.ops import gelu as ops_gelu
from imagen_fast.ops.cpu import gelu


@pytest.fixture
def served(monkeypatch):
    """How many calls came to our kernel."""
    if not native.available():
        pytest.skip("the native module was not built")
    monkeypatch.setattr(ops_gelu, "LEAST", 0)
    calls = []
    kernel = native.gelu_forward
    monkeypatch.setattr(native, "gelu_forward", lambda x, quick: calls.append(quick) or kernel(x, quick))
    return calls


def swapped(made):
    return [s for s in made.swapped if s.kind == "activation"]


@pytest.mark.parametrize(
    ("name", "quick", "calls"),
    [
        ("ViT", False, 2),
        ("ViTMAE", False, 3),
        ("DINOv2", False, 2),
        ("timm ViT", False, 2),
        ("ImageGPT", True, 2),
    ],
)
def test_served_in_bf16_and_left_in_float32(name, quick, calls, served):
    step = step_of(name)
    made = imagen_fast.accelerate(step.model, trial=False)
    assert len(swapped(made)) == calls
    step.gradients()
    assert served == []
    with torch.autocast("cpu", torch.bfloat16):
        step.gradients()
    # ImageGPT's norms leave the MLP in float32 under autocast, but for its products.
    assert served == [quick] * calls
    made.undo()
    with torch.autocast("cpu", torch.bfloat16):
        step.gradients()
    assert len(served) == calls


def test_an_approximation_is_left_with_the_reason():
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 1, "num_heads": 2}
    model = timm.models.VisionTransformer(**sizes, act_layer=lambda: nn.GELU(approximate="tanh"))
    made = imagen_fast.accelerate(model, trial=False)
    (left,) = (left for left in made.left if left.kind == "activation")
    assert left.why == "it is the approximation by tanh"


def test_a_trial_runs_no_hooks_and_is_of_what_ours_serves(monkeypatch):
    from imagen_fast.integrations.accelerate import model as swapping

    types = []

    def gain(work):
        if work.ours is ops_gelu.gelu:
            (x,) = work.inputs
            types.append(x.dtype)
            assert x.shape == (8, 17, 768)  # images, tokens, width of the MLP
            torch.testing.assert_close(work.theirs(*work.inputs), work.ours(*work.inputs))
        return 1.5

    monkeypatch.setattr(swapping, "gain", gain)
    step, calls = step_of("timm ViT"), []
    for block in step.model.blocks:
        block.mlp.act.register_forward_hook(lambda *call: calls.append(call))
    made = imagen_fast.accelerate(step.model)
    assert calls == []
    assert types == [torch.bfloat16]
    assert [s.gains for s in swapped(made)] == [{torch.bfloat16: 1.5}] * 2
    assert step.model.blocks[0].mlp.act.imagen_fast_types == {torch.bfloat16}


def test_modules_of_two_libraries_are_told_once(monkeypatch):
    from imagen_fast.integrations.accelerate import model as swapping

    monkeypatch.setattr(swapping, "gain", lambda work: 1.0)
    model = nn.ModuleDict({"a": step_of("ViT").model, "b": step_of("timm ViT").model})
    names = [left.name for left in imagen_fast.accelerate(model).left]
    assert len(names) == len(set(names))


def test_maps_with_their_channels_last_are_pytorchs():
    x = torch.randn(2, 8, 4, 4, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    assert "channels last" in gelu.refusal(x)
