"""`accelerate`: what is swapped is what pays in a quick trial on this machine."""

import pytest
import torch
from small_models import step_of

import imagen_fast
from imagen_fast.integrations.accelerate import model as swapping
from imagen_fast.integrations.accelerate import trial


def kinds(made):
    return {swapped.kind for swapped in made.swapped}


def test_only_what_pays_in_a_trial_is_swapped(monkeypatch):
    def gain(work):
        return 1.5 if work.autocast or work.inputs[0].dtype == torch.bfloat16 else 0.9

    monkeypatch.setattr(swapping, "gain", gain)
    step = step_of("ViTMAE")
    theirs = step.gradients()
    made = imagen_fast.accelerate(step.model)
    assert "attention" in kinds(made)
    told = "3 x ViTMAEAttention: swapped attention (0.90x in fp32, where it is left, 1.50x in bf16)"
    assert told in str(made)
    # In float32 the originals still run: all but the loss, which has no trial.
    loss, _ = step.gradients()
    torch.testing.assert_close(loss, theirs[0], rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(swapping, "gain", lambda work: 1.0)
    other = step_of("ViTMAE")
    made = imagen_fast.accelerate(other.model)
    assert kinds(made) == {"loss"}
    assert "ours does not pay on this machine (1.00x in fp32, 1.00x in bf16)" in str(made)


def test_the_programs_random_numbers_are_left_alone():
    step = step_of("ViTMAE")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    imagen_fast.accelerate(step.model)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trial_tells_the_faster_of_two():
    x = torch.randn(64, 64, requires_grad=True)
    once, often = (lambda x: x @ x), (lambda x: sum(x @ x for _ in range(40)))
    assert trial.gain(trial.Work(often, once, (x,))) > 2
    assert trial.gain(trial.Work(once, often, (x,))) < 0.5


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_trial_where_gradients_are_off(context):
    with context():
        assert imagen_fast.accelerate(step_of("timm ViT").model).swapped is not None


def test_a_model_without_weights_yet_is_left_with_the_reason():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    made = imagen_fast.accelerate(model)
    assert not made.swapped
    assert {left.why for left in made.left} == {
        "its weights are on the meta device, where nothing can be tried"
    }


def test_attention_whose_heads_are_the_configs(monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(
        swapping, "gain", lambda work: [work.theirs(*work.inputs), work.ours(*work.inputs), 1.5][2]
    )
    sizes = {"vocab_size": 50, "dim": 32, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    model = transformers.DistilBertModel(transformers.DistilBertConfig(**sizes))
    made = imagen_fast.accelerate(model)
    assert "attention" in kinds(made)
    made.undo()
    del model.transformer.layer[0].attention.attention_head_size
    (left,) = imagen_fast.accelerate(model).left
    assert left.why == "it does not say how many heads it has, or how wide"


def test_a_trial_takes_fewer_images_and_rounds_where_they_take_long(monkeypatch):
    assert [trial.images_of(tokens) for tokens in (50, 400, 577, 1370, 4097)] == [8, 8, 3, 1, 1]
    calls = []
    work = trial.Work(
        lambda x: calls.append(0) or 2 * x, lambda x: 2 * x, (torch.ones(2, requires_grad=True),)
    )
    trial.gain(work)
    assert len(calls) == 2 + trial.ROUNDS
    calls.clear()
    monkeypatch.setattr(trial, "SECONDS", 0.0)
    trial.gain(work)
    assert len(calls) == 1 + trial.LEAST_ROUNDS


@pytest.mark.parametrize(("name", "tokens"), [("ViTMAE", {5, 17}), ("timm ViT", {17})])
def test_the_trial_is_of_the_models_size(name, tokens, monkeypatch):
    seen = set()

    def gain(work):
        seen.update(n for x in work.inputs for n in x.shape[1:2] if x.dim() >= 4 and n != 3)
        return 1.5

    monkeypatch.setattr(swapping, "gain", gain)
    imagen_fast.accelerate(step_of(name).model)
    assert tokens <= seen
    assert 197 not in seen
