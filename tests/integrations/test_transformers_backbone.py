"""Our vision transformer among transformers' models: what they read, save, load, train and build upon."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import PixelBackbone, PixelConfig, VisionTransformer, ViTConfig
from imagen_fast.models.convert import load_timm, load_vit
from imagen_fast.tasks.folder import load_folder

transformers = pytest.importorskip("transformers")

from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification  # noqa: E402

from imagen_fast.integrations import transformers_backbone as ours  # noqa: E402

TINY = {"patch_size": 8, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


def config(**changes):
    return ours.ImagenFastViTConfig(**{"image_size": (32, 48), **TINY, **changes})


def images(seed=0):
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in a.state_dict().items()
    )


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_a_folder_that_transformers_saved_is_one_of_ours(classes, tmp_path):
    auto = AutoModelForImageClassification if classes else AutoModel
    theirs = auto.from_config(config(num_labels=classes) if classes else config())
    theirs.save_pretrained(tmp_path)
    vit, _ = load_folder(tmp_path, VisionTransformer)
    assert vit.num_classes == classes
    assert same_weights(vit, theirs.vit)
    assert vit.patch_embed.sizes == "divisible"


@pytest.mark.parametrize("cls", [ours.ImagenFastViTBackbone, ours.ImagenFastViTModel])
def test_classes_without_a_head_are_none(cls, tmp_path):
    classifier = VisionTransformer(ViTConfig((16, 16), 8, embed_dim=16, depth=2, heads=2), 5)
    cls.from_vit(classifier).save_pretrained(tmp_path)
    vit, _ = load_folder(tmp_path, VisionTransformer)
    assert vit.num_classes == 0
    assert vit.patch_embed.sizes == ("padded" if "Backbone" in cls.__name__ else "divisible")
    assert torch.equal(vit.blocks[1].attn.qkv.weight, classifier.blocks[1].attn.qkv.weight)


def test_weights_in_several_files_are_told_of(tmp_path):
    AutoModel.from_config(config()).save_pretrained(tmp_path, max_shard_size="20KB")
    with pytest.raises(CheckpointError, match="holds its weights in several files"):
        load_folder(tmp_path, VisionTransformer)


def test_a_head_of_ones_own_is_taken_or_refused():
    shapes = ViTConfig((16, 16), 8, embed_dim=16, depth=2, heads=2)
    for vit in (VisionTransformer(shapes, 5), VisionTransformer(shapes)):
        vit.head = nn.Linear(16, 7)
        made = ours.ImagenFastViTForImageClassification.from_vit(vit)
        assert made.config.num_labels == 7
        assert torch.equal(made.vit.head.weight, vit.head.weight)
    vit.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(16, 7))
    with pytest.raises(InvalidInput, match=r"changed since it was made: 'head.1.bias' is not as it was"):
        ours.ImagenFastViTForImageClassification.from_vit(vit)


def test_feature_maps_are_the_tokens_of_the_stages():
    backbone = AutoBackbone.from_config(config(out_features=["stem", "stage2", "stage4"])).eval()
    assert isinstance(backbone, ours.ImagenFastViTBackbone)
    assert backbone.channels == [32, 32, 32]
    vit = backbone.vit
    x = vit.embed(images())
    expected = [x, *(x := block(x) for block in vit.blocks)]
    out = backbone(images(), output_hidden_states=True)
    assert [state.shape for state in out.hidden_states] == [(2, 25, 32)] * 5
    assert all(torch.equal(a, b) for a, b in zip(out.hidden_states, expected, strict=True))
    assert len(out.feature_maps) == 3
    for stage, found in zip((0, 2, 4), out.feature_maps, strict=True):
        # Row by row: patch n of the grid of 4 x 6 lies in row n // 6.
        assert torch.equal(found, vit.norm(expected[stage])[:, 1:].reshape(2, 4, 6, 32).permute(0, 3, 1, 2))
    assert torch.equal(out.feature_maps[-1].flatten(2).mT, vit.forward_features(images())[:, 1:])


def test_maps_of_images_of_other_sizes():
    backbone = AutoBackbone.from_config(config(out_indices=[2, 4])).eval()
    larger = torch.randn(2, 3, 48, 40)
    maps = backbone(larger).feature_maps
    assert [found.shape for found in maps] == [(2, 32, 6, 5)] * 2
    tokens = backbone.vit.forward_features(larger)[:, 1:]
    assert torch.equal(maps[-1].flatten(2).mT, tokens)
    odd = torch.randn(2, 3, 45, 33)
    whole = nn.functional.pad(odd, (0, 7, 0, 3))
    for found, wanted in zip(backbone(odd).feature_maps, backbone(whole).feature_maps, strict=True):
        assert torch.equal(found, wanted)


def test_maps_without_norm_and_as_tokens():
    backbone = AutoBackbone.from_config(config(apply_layernorm=False, reshape_hidden_states=False)).eval()
    (found,) = backbone(images()).feature_maps
    assert torch.equal(backbone.vit.norm(found), backbone.vit.forward_features(images()))


def test_no_block_is_computed_after_the_last_stage_that_is_asked_for():
    backbone = AutoBackbone.from_config(config(out_indices=[0, 2]))
    ran = []
    for number, block in enumerate(backbone.vit.blocks, 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    backbone(images())
    assert ran == [1, 2]
    backbone(images(), output_hidden_states=True)
    assert ran == [1, 2, 1, 2, 3, 4]


def test_the_model_and_the_classifier_are_ours():
    model = AutoModel.from_config(config(pool="avg")).eval()
    out = model(images())
    assert torch.equal(out.last_hidden_state, model.vit.forward_features(images()))
    assert torch.equal(out.pooler_output, model.vit(images()))
    assert out.hidden_states is None
    assert torch.equal(model(images(), return_dict=False)[0], out.last_hidden_state)

    classifier = AutoModelForImageClassification.from_config(config(num_labels=5)).eval()
    labels = torch.tensor([4, 1])
    out = classifier(images(), labels=labels)
    assert torch.equal(out.logits, classifier.vit(images()))
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(out.logits, labels))


@pytest.mark.parametrize("auto", [AutoBackbone, AutoModel, AutoModelForImageClassification])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_what_is_saved_is_loaded(auto, positions, tmp_path, monkeypatch):
    if auto is AutoBackbone:
        # It asks the Hub whether a folder is one of its repositories, and does not take a no.
        pretend_to_be_on_the_hub(monkeypatch)
    model = auto.from_config(config(out_indices=[1, 3], positions=positions, pool="avg", drop_path=0.1))
    model.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert same_weights(model, again)
    assert again.config.out_features == ["stage1", "stage3"]
    assert again.config.shapes == model.config.shapes
    assert again.vit.blocks[-1].drop_path.rate == pytest.approx(0.1)
    # Fixed tables stay fixed, though whatever transformers loads can be trained.
    assert again.vit.pos_embed.requires_grad == (positions == "learned")
    assert all(p.requires_grad for n, p in again.named_parameters() if n != "vit.pos_embed")
    half = auto.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def pretend_to_be_on_the_hub(monkeypatch):
    try:
        from transformers.utils import hf_api
    except ImportError:
        return
    monkeypatch.setattr(hf_api(), "repo_exists", lambda *_: True)


def test_a_new_head_on_a_loaded_backbone(tmp_path):
    AutoBackbone.from_config(config()).save_pretrained(tmp_path)
    backbone = ours.ImagenFastViTBackbone.from_pretrained(tmp_path)
    classifier = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert classifier(images()).logits.shape == (2, 7)
    own = classifier.vit.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in backbone.vit.state_dict().items())
    assert 0 < own["head.weight"].std() < 1e-4
    assert not own["head.bias"].any()


def test_a_new_model_begins_as_ours_do():
    torch.manual_seed(0)
    model = AutoModel.from_config(config(positions="learned"))
    one = VisionTransformer(model.config.shapes)
    for name, value in one.state_dict().items():
        found = model.vit.state_dict()[name]
        torch.testing.assert_close(found.std(), value.std(), rtol=0.3, atol=1e-6, msg=name)
    fixed = AutoModel.from_config(config())
    assert torch.equal(fixed.vit.pos_embed, VisionTransformer(fixed.config.shapes).pos_embed)


def test_checkpointing_computes_blocks_again_and_changes_no_gradient():
    backbone = AutoBackbone.from_config(config(out_indices=[2, 4], drop_path=0.2)).train()
    ran = []
    # Before it: a block that is computed again is left as soon as nothing more is needed of it.
    backbone.vit.blocks[1].register_forward_pre_hook(lambda *_: ran.append(1))

    def gradients():
        ran.clear()
        backbone.zero_grad()
        torch.manual_seed(1)  # of the blocks that are dropped
        sum(found.square().mean() for found in backbone(images()).feature_maps).backward()
        return {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}, len(ran)

    kept, once = gradients()
    enable = getattr(backbone, "activation_checkpointing_enable", None)  # its newer name
    (enable or backbone.gradient_checkpointing_enable)()
    again, twice = gradients()
    assert (once, twice) == (1, 2)
    assert kept.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in kept.items())


def build(name, backbone_config):
    """A tiny model of transformers around a backbone, and its loss on two images."""
    heads = {"backbone_config": backbone_config}
    x = torch.randn(2, backbone_config.num_channels, 64, 64)
    if name == "UperNet":
        made = transformers.UperNetForSemanticSegmentation(
            transformers.UperNetConfig(
                **heads, hidden_size=8, num_labels=3, auxiliary_in_channels=32, auxiliary_channels=8
            )
        )
        return made, lambda: made(x, labels=torch.randint(0, 3, (2, 64, 64))).loss
    if name == "DPT":
        sizes = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "is_hybrid": False}
        made = transformers.DPTForDepthEstimation(transformers.DPTConfig(**heads, **sizes))
        return made, lambda: made(x).predicted_depth.square().mean()
    if name == "VitMatte":
        made = transformers.VitMatteForImageMatting(
            transformers.VitMatteConfig(
                **heads, hidden_size=32, convstream_hidden_sizes=[8] * 3, fusion_hidden_sizes=[8] * 4
            )
        )
        return made, lambda: made(x).alphas.square().mean()
    width = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "dim_feedforward"), 32)
    small = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 4, "num_attention_heads": 2}
    made = transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(**heads, **width, **small, encoder_feedforward_dim=32)
    )
    return made, lambda: made(x).masks_queries_logits.square().mean()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("UperNet", {"out_indices": [1, 2, 3, 4]}),
        ("DPT", {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}),
        ("Mask2Former", {"out_indices": [1, 2, 3, 4]}),
        ("VitMatte", {"out_indices": [4], "num_channels": 4, "patch_size": 16}),
    ],
)
def test_transformers_models_build_upon_it(name, changes, tmp_path):
    model, loss = build(name, config(**{"image_size": 64, **changes}))
    assert any(isinstance(module, ours.ImagenFastViTBackbone) for module in model.modules())
    loss().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if "vit." in n and p.requires_grad}
    assert gradients
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert next(g for n, g in gradients.items() if n.endswith("patch_embed.proj.weight")).any()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert same_weights(model, again)
    assert type(again.config.backbone_config) is ours.ImagenFastViTConfig


def test_it_trains_in_the_trainer(tmp_path):
    pytest.importorskip("accelerate")
    model = AutoModelForImageClassification.from_config(config(num_labels=2))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    bright = [{"pixel_values": images(n)[0] + n % 2, "labels": n % 2} for n in range(16)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=12,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="epoch",
        save_strategy="no",
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=bright, eval_dataset=bright)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=0.05)  # of two classes, unseen
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.evaluate()["eval_loss"] < 0.5 * losses[0]
    frozen = {name for name, value in model.state_dict().items() if torch.equal(value, start[name])}
    assert frozen == {"vit.pos_embed"}
    trainer.save_model(str(tmp_path / "saved"))
    assert same_weights(model, AutoModelForImageClassification.from_pretrained(tmp_path / "saved"))


def test_weights_of_ours_of_timm_and_of_vit():
    shapes = ViTConfig((32, 48), 8, 3, 32, 4, 2, pool="avg")
    classifier = VisionTransformer(shapes, num_classes=3)
    taken = ours.ImagenFastViTForImageClassification.from_vit(classifier).eval()
    assert torch.equal(taken(images()).logits, classifier.eval()(images()))
    backbone = ours.ImagenFastViTBackbone.from_vit(classifier, out_indices=[2, 4]).eval()
    assert torch.equal(backbone.vit.forward_features(images()), classifier.forward_features(images()))
    # Another head, another pooling, another size: what has no counterpart is new.
    other = ours.ImagenFastViTForImageClassification.from_vit(
        classifier, num_labels=6, pool="token", image_size=(64, 48)
    )
    assert other(torch.randn(2, 3, 64, 48)).logits.shape == (2, 6)
    assert torch.equal(other.vit.blocks[2].attn.qkv.weight, classifier.blocks[2].attn.qkv.weight)

    timm = pytest.importorskip("timm")
    theirs = timm.models.VisionTransformer(
        img_size=(32, 48), patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3
    ).eval()
    found = ours.ImagenFastViTForImageClassification.from_vit(load_timm(theirs)).eval()
    torch.testing.assert_close(found(images()).logits, theirs(images()), rtol=1e-4, atol=1e-4)
    square = {**TINY, "image_size": 48, "intermediate_size": 64, "num_labels": 4}
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(**square)).eval()
    found = ours.ImagenFastViTForImageClassification.from_vit(load_vit(theirs)).eval()
    x = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(found(x).logits, theirs(x).logits, rtol=1e-4, atol=1e-4)


def test_the_attention_is_ours_whatever_is_asked_for(tmp_path, caplog):
    AutoModel.from_config(config()).save_pretrained(tmp_path)
    transformers.utils.logging.enable_propagation()
    try:
        model = AutoModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    finally:
        transformers.utils.logging.disable_propagation()
    assert "attn_implementation='sdpa' has nothing to choose in ImagenFastViTModel" in caplog.text
    assert model.config._attn_implementation == "imagen_fast"
    with pytest.raises(InvalidInput, match="output_attentions cannot be True"):
        model(images(), output_attentions=True)


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(InvalidInput, match="patch of 7 pixels does not divide"):
        config(patch_size=7)
    with pytest.raises(InvalidInput, match=r"are not the stages \[1\]"):
        config(out_features=["stage2"], out_indices=[1])
    with pytest.raises(ValueError, match="stage_names"):
        config(out_features=["stage5"])
    with pytest.raises(InvalidInput, match="not a PixelBackbone"):
        ours.ImagenFastViTModel.from_vit(PixelBackbone(PixelConfig((4, 4), embed_dim=8, depth=1, heads=1)))
    vit = VisionTransformer(ViTConfig((16, 16), 8, embed_dim=16, depth=2, heads=2), 3)
    for change in ({"depth": 4}, {"heads": 4}, {"patch_size": 4}, {"mlp_ratio": 2.0}):
        with pytest.raises(InvalidInput, match=f"the weights are of {next(iter(change))}="):
            ours.ImagenFastViTBackbone.from_vit(vit, **change)
    with pytest.raises(InvalidInput, match=r"the backbone takes images .*, not 8x12"):
        AutoModel.from_config(config())(torch.zeros(1, 3, 8, 12))


def test_the_configuration_has_both_kinds_of_names():
    found = AutoConfig.for_model("imagen_fast_vit", **TINY, drop_path_rate=0.2)
    assert (found.embed_dim, found.depth, found.heads, found.drop_path) == (32, 4, 2, 0.2)
    assert (found.hidden_size, found.num_hidden_layers) == (32, 4)
    assert found.image_size == [224, 224]
    assert found.stage_names == ["stem", "stage1", "stage2", "stage3", "stage4"]


def test_type_and_stochastic_depth_come_with_the_weights():
    vit = VisionTransformer(ViTConfig((16, 16), 8, embed_dim=16, depth=2, heads=2), drop_path=0.25)
    made = ours.ImagenFastViTBackbone.from_vit(vit.bfloat16())
    assert made.dtype == torch.bfloat16
    assert made.config.drop_path == 0.25


def test_a_detector_trains_on_images_that_no_patch_divides():
    backbone = config(out_indices=[4])
    heads = {"num_labels": 2, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 3}
    heads |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2}
    made = transformers.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        decoder_attention_heads=2,
        **heads,
    )
    detector = transformers.DetrForObjectDetection(made).train()
    pixels, mask = torch.randn(2, 3, 45, 61), torch.ones(2, 45, 61, dtype=torch.long)
    boxes = detector(pixel_values=pixels, pixel_mask=mask).pred_boxes
    boxes.sum().backward()
    assert boxes.shape == (2, 3, 4)
    assert detector.model.backbone is not None
