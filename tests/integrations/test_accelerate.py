"""`accelerate`: the same model, faster; and as it was, when it is taken back."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from small_models import STEPS, assert_alike, step_of
from torch import nn

import imagen_fast
from imagen_fast.errors import InvalidInput
from imagen_fast.ops import gelu

MODELS = sorted(STEPS)


def kinds(made):
    return {swapped.kind for swapped in made.swapped}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_loss_and_gradients(name):
    step = step_of(name)
    theirs, state = step.gradients(), list(step.model.state_dict())
    made = imagen_fast.accelerate(step.model, trial=False)
    assert ("attention" in kinds(made)) != ("BEiT" in name)
    assert_alike(step.gradients(), theirs)
    assert list(step.model.state_dict()) == state


@pytest.mark.parametrize("name", MODELS)
def test_in_bfloat16_as_near_to_the_truth_as_the_original(name, monkeypatch):
    monkeypatch.setattr(gelu, "LEAST", 0)
    step = step_of(name)
    _, exact = step.gradients()

    def error():
        with torch.autocast("cpu", torch.bfloat16):
            _, gradients = step.gradients()
        assert gradients.keys() == exact.keys()
        return sum((gradients[name] - exact[name]).square().sum() for name in exact).sqrt().item()

    theirs = error()
    assert imagen_fast.accelerate(step.model, trial=False).swapped
    assert 0 < error() <= 1.2 * theirs


@pytest.mark.parametrize("name", MODELS)
def test_undone_it_is_bitwise_what_it_was(name):
    step = step_of(name)
    before = [type(module) for module in step.model.modules()]
    loss, gradients = step.gradients()
    made = imagen_fast.accelerate(step.model, trial=False)
    step.gradients()
    made.undo()
    again, now = step.gradients()
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[name], now[name]) for name in gradients)
    assert [type(module) for module in step.model.modules()] == before
    assert not any("imagen_fast" in name for module in step.model.modules() for name in vars(module))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["ViTMAE", "ImageGPT", "timm ViT"])
def test_a_copy_is_accelerated_too_and_does_not_share(name, copied):
    step = step_of(name)
    imagen_fast.accelerate(step.model, trial=False)
    twin = copied(step.model)
    assert [type(m) for m in twin.modules()] == [type(m) for m in step.model.modules()]
    with torch.no_grad():
        for parameter in step.model.parameters():
            parameter.fill_(float("nan"))
    with torch.autocast("cpu", torch.bfloat16):
        assert step.gradients(twin)[0].isfinite()


def test_twice_changes_nothing_more():
    step = step_of("ViTMAE")
    imagen_fast.accelerate(step.model, trial=False)
    again = imagen_fast.accelerate(step.model, trial=False)
    assert not again.swapped
    again.undo()
    assert not imagen_fast.accelerate(step.model, trial=False).swapped


def test_vitmaes_decoder_is_reached_which_their_switch_misses():
    step = step_of("ViTMAE")
    made = imagen_fast.accelerate(step.model, trial=False)
    assert any(s.name.startswith("decoder.") for s in made.swapped if s.kind == "attention")


def test_it_tells_what_it_did():
    told = str(imagen_fast.accelerate(step_of("ViTMAE").model, trial=False)).splitlines()
    assert (
        "1 x ViTMAEForPreTraining: swapped loss (not tried; its decoder has no positions, all of "
        "decoder_pos_embed is 0: model.decoder.initialize_weights(16) sets them), the model itself" in told
    )
    assert (
        "3 x ViTMAEAttention: swapped attention (not tried), vit.layers.0.attention to "
        "decoder.decoder_layers.0.attention" in told
    )


def test_eager_attention_is_left_with_the_reason():
    step = step_of("ViT")
    step.model.set_attn_implementation("eager")
    made = imagen_fast.accelerate(step.model, trial=False)
    left = {left.why for left in made.left if left.kind == "attention"}
    assert left == {"its attn_implementation is eager, which gives the probabilities"}


def test_what_their_user_asks_for_afterwards_holds():
    step = step_of("ViT")
    made = imagen_fast.accelerate(step.model, trial=False)
    step.model.set_attn_implementation("eager")
    images = torch.randn(1, 3, 32, 32)
    assert step.model(images, output_attentions=True).attentions[0].shape == (1, 2, 17, 17)
    made.undo()
    assert step.model.config._attn_implementation == "eager"


def test_a_subclass_that_somebody_wrote_is_none_of_ours():
    timm = pytest.importorskip("timm")

    class Attention(timm.layers.Attention):
        pass

    model = nn.ModuleList([Attention(64, 2), timm.layers.Attention(64, 2)])
    made = imagen_fast.accelerate(model, trial=False)
    assert [s.name for s in made.swapped if s.kind == "attention"] == ["1"]


def test_a_bias_of_relative_positions_stays_theirs_on_the_cpu():
    for name in ("BEiT", "timm BEiT"):
        made = imagen_fast.accelerate(step_of(name).model, trial=False)
        told = {left.why for left in made.left if left.kind == "attention"}
        assert told == {"ours has no fast way for a bias of relative positions on the CPU"}


def test_save_pretrained_and_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    step = step_of("ViTMAE")
    imagen_fast.accelerate(step.model, trial=False)
    loss, _ = step.gradients()
    step.model.save_pretrained(tmp_path)
    assert "imagen_fast" not in (tmp_path / "config.json").read_text()
    plain = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path).train()
    assert type(plain) is transformers.ViTMAEForPreTraining
    torch.testing.assert_close(step.gradients(plain)[0], loss, rtol=1e-5, atol=1e-5)


def test_what_is_no_module_is_refused():
    with pytest.raises(InvalidInput, match=r"accelerate takes a torch\.nn\.Module, not str"):
        imagen_fast.accelerate("vit")


def test_a_model_with_nothing_to_swap_says_so():
    assert str(imagen_fast.accelerate(nn.Linear(3, 4))) == "nothing that imagen_fast knows a faster way for"


def test_a_pickle_runs_in_another_process(tmp_path):
    step = step_of("ViT")
    imagen_fast.accelerate(step.model, trial=False)
    torch.save(step.model.eval(), tmp_path / "model.pt")
    images = torch.randn(2, 3, 32, 32)
    torch.save((images, step.model(images).logits), tmp_path / "wanted.pt")
    code = (
        "import sys, torch; model = torch.load(sys.argv[1], weights_only=False)\n"
        "images, wanted = torch.load(sys.argv[2]); torch.testing.assert_close(model(images).logits, wanted)"
    )
    command = [sys.executable, "-P", "-c", code, tmp_path / "model.pt", tmp_path / "wanted.pt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_convolution_of_ones_own_is_left_alone():
    vit = step_of("timm ViT").model
    own = nn.Conv2d(8, 4, 2, stride=2)
    model = nn.ModuleDict({"vit": vit, "head": own})
    made = imagen_fast.accelerate(model, trial=False)
    assert [s.name for s in made.swapped if s.kind == "embedding"] == ["vit.patch_embed"]
    assert type(own) is nn.Conv2d
    assert vit(torch.randn(0, 3, 64, 64)).shape == (0, 5)


def test_a_forward_of_ones_own_is_told():
    step = step_of("ViTMAE")
    step.model.forward = step.model.forward
    step.model.decoder.decoder_layers[0].attention.forward = lambda *args, **kwargs: None
    made = imagen_fast.accelerate(step.model, trial=False)
    left = {left.name: left.why for left in made.left}
    assert left[""] == left["decoder.decoder_layers.0.attention"]
    assert left[""] == "its forward is its own, and not that of its class"


def test_a_loss_of_ones_own_is_kept():
    step = step_of("ViTMAE")
    patchify = step.model.patchify
    step.model.patchify = lambda *args, **kwargs: patchify(*args, **kwargs).sign()
    theirs = step.loss(step.model)
    made = imagen_fast.accelerate(step.model, trial=False)
    assert "loss" not in kinds(made)
    torch.testing.assert_close(step.loss(step.model), theirs)


def test_after_another_choice_it_can_be_ours_again():
    step = step_of("ViT")
    imagen_fast.accelerate(step.model, trial=False)
    step.model.set_attn_implementation("sdpa")
    again = imagen_fast.accelerate(step.model, trial=False)
    assert "attention" in kinds(again)
    again.undo()
    assert step.model.config._attn_implementation == "sdpa"


def test_models_that_share_a_config_are_undone_one_by_one():
    transformers = pytest.importorskip("transformers")
    student = step_of("ViT").model
    teacher = transformers.ViTForImageClassification(student.config)
    assert teacher.config is student.config
    of_student, of_teacher = (imagen_fast.accelerate(model, trial=False) for model in (student, teacher))
    theirs = student.config._attn_implementation
    of_student.undo()
    assert student.config._attn_implementation == theirs
    of_teacher.undo()
    assert student.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("made_again", [copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_a_config_by_itself_names_their_attention(made_again):
    step = step_of("ViT")
    imagen_fast.accelerate(step.model, trial=False)
    again = made_again(step.model.config)
    assert again._attn_implementation == "sdpa"
    assert type(again._attn_implementation) is str
    assert step.model.config._attn_implementation == "imagen_fast_or_sdpa"


def test_windows_are_left():
    transformers = pytest.importorskip("transformers")
    sizes = {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1],
        "num_heads": [2],
        "window_size": 4,
    }
    made = imagen_fast.accelerate(transformers.SwinModel(transformers.SwinConfig(**sizes)), trial=False)
    assert "attention" not in kinds(made)


@pytest.mark.parametrize("name", ["timm ViT", "ViT"])
def test_a_second_time_it_is_told_that_all_is_ours(name):
    step = step_of(name)
    first = imagen_fast.accelerate(step.model, trial=False)
    again = imagen_fast.accelerate(step.model, trial=False)
    why = {(left.name, left.kind): left.why for left in again.left}
    swapped = {(s.name, s.kind) for s in first.swapped if s.kind != "embedding"}
    assert {why[each] for each in swapped} == {"it is ours already"}


def test_features_are_extracted_by_torch_fx():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    step = step_of("timm ViT")
    imagen_fast.accelerate(step.model, trial=False)
    x = torch.randn(1, 3, 64, 64)
    found = extraction.create_feature_extractor(step.model.eval(), ["blocks.0"])(x)["blocks.0"]
    wanted = step.model.forward_intermediates(x, indices=[0], output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(found[:, 1:], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_exported_for_batches_of_any_size(strict, dtype):
    model = step_of("timm ViT").model.eval().to(dtype)
    imagen_fast.accelerate(model, trial=False)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(
        model, (torch.randn(4, 3, 64, 64).to(dtype),), dynamic_shapes=shapes, strict=strict
    )
    x = torch.randn(3, 3, 64, 64).to(dtype)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=0.05, atol=0.05)


def test_a_tangent_is_the_originals():
    """In forward mode, for which ours have no rules; PyTorch's own attention has none either."""
    step = step_of("ImageGPT")

    def tangent():
        weights = dict(step.model.named_parameters())
        torch.manual_seed(3)
        along = {name: torch.randn_like(p) for name, p in weights.items()}
        return torch.func.jvp(_functional(step), (weights,), (along,))[1]

    theirs = tangent()
    imagen_fast.accelerate(step.model, trial=False)
    assert theirs != 0
    torch.testing.assert_close(tangent(), theirs)


@pytest.mark.parametrize("name", ["ImageGPT", "ViTMAE", "timm ViT"])
def test_torch_func_differentiates(name):
    step = step_of(name)
    theirs = torch.func.grad_and_value(_functional(step))(dict(step.model.named_parameters()))
    imagen_fast.accelerate(step.model, trial=False)
    ours = torch.func.grad_and_value(_functional(step))(dict(step.model.named_parameters()))
    assert_alike(ours[::-1], theirs[::-1])


def _functional(step):
    """The loss as a function of the weights."""

    def loss(weights):
        return step.loss(lambda *x, **inputs: torch.func.functional_call(step.model, weights, x, inputs))

    return loss
