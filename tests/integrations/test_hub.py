"""Our models as the Hugging Face Hub keeps them: folders that come back bitwise, and honest cards."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from imagen_fast import models
from imagen_fast.data import CenterCrop
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.objectives import MaskedConfig, MaskedObjective
from imagen_fast.ops import Neighbourhood
from imagen_fast.tasks.folder import labels, load_folder, save_folder

huggingface_hub = pytest.importorskip("huggingface_hub")

from imagen_fast.integrations import hub  # noqa: E402

VIT = models.ViTConfig((16, 24), 8, 3, 32, 2, 2)
DECODER = models.DecoderConfig("cross", 16, 1, 2)
PIXELS = models.PixelConfig((4, 6), 1, 1, levels=17, embed_dim=16, depth=1, heads=2, context=Neighbourhood(2))
FACTS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "crop": 0.875}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


def made(kind):
    if kind == "backbone":
        return models.VisionTransformer(VIT)
    if kind == "classifier":
        return models.VisionTransformer(replace(VIT, pool="avg", positions="learned"), num_classes=5)
    if kind == "autoencoder":
        return models.MaskedAutoencoder(VIT, DECODER)
    if kind == "pixels":
        return models.PixelTransformer(PIXELS)
    if kind == "palette":
        model = models.PixelTransformer(replace(PIXELS, colours=9, channels=3))
        model.symbols.palette.copy_(torch.randint(0, 256, (9, 3)))
        return model
    return models.PixelClassifier(PIXELS, 3)


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = dict(b.named_parameters()) | dict(b.named_buffers())
    own = dict(a.named_parameters()) | dict(a.named_buffers())
    return own.keys() == theirs.keys() and all(
        torch.equal(value, theirs[name])
        and value.dtype == theirs[name].dtype
        and value.requires_grad == theirs[name].requires_grad
        for name, value in own.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", ["backbone", "classifier", "autoencoder", "pixels", "palette", "pixel classifier"]
)
def test_a_folder_comes_back_bitwise(kind, dtype, tmp_path):
    model = hub.on_hub(made(kind).to(dtype))
    assert isinstance(model, huggingface_hub.PyTorchModelHubMixin)
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    again = type(model).from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert not again.training
    assert same(model, again)
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes(), name
    plain, _ = load_folder(tmp_path, type(made(kind)))  # and without huggingface_hub
    assert type(plain) is type(made(kind))
    assert same(model, plain)


def test_a_live_model_keeps_its_weights_and_its_class():
    model = models.VisionTransformer(VIT, drop_path=0.3).train()
    shared = hub.on_hub(model)
    assert type(model) is models.VisionTransformer
    assert shared.training
    assert shared.blocks[1].drop_path.rate == 0.3
    nn.init.ones_(model.cls_token)
    assert bool((shared.cls_token == 1).all())
    with pytest.raises(InvalidInput, match="not for a PixelBackbone"):
        hub.on_hub(models.PixelBackbone(PIXELS))
    likelihood = MaskedObjective(VIT, DECODER, MaskedConfig(loss="categorical"), (0.5,), (0.5,))
    with pytest.raises(InvalidInput, match="only a masked autoencoder that predicts the pixels"):
        hub.on_hub(likelihood.model)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("backbone", "image-feature-extraction"),
        ("classifier", "image-classification"),
        ("pixels", "unconditional-image-generation"),
    ],
)
def test_the_head_of_the_card_is_as_the_hub_reads_it(kind, task):
    card = hub.on_hub(made(kind)).generate_model_card()
    assert card.data.to_dict()["library_name"] == "imagen_fast"
    assert card.data.pipeline_tag == task
    assert card.data.license == "apache-2.0"
    assert {"imagen_fast", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    assert "self-supervised-learning" not in card.data.tags  # which nobody has said
    assert "Not known: the model was saved without its run." in card.text
    assert ("How the pixels are to be normalised is not known" in card.text) == (kind != "pixels")
    other = hub.on_hub(made(kind)).generate_model_card(name="somebody/something", license="mit")
    assert other.data.license == "mit"
    assert '.from_pretrained("somebody/something")' in other.text


def test_papers_are_those_of_the_model():
    cited = {
        "backbone": ("dosovitskiy2021image",),
        "autoencoder": ("dosovitskiy2021image", "he2022masked", "fu2024rethinking"),
        "pixels": ("chen2020generative",),
    }
    for kind, papers in cited.items():
        card = hub.on_hub(made(kind)).generate_model_card().text
        assert card.count("\n  title = ") == len(papers)
        assert all(f"{{{paper}," in card for paper in papers)


def test_many_classes_are_not_all_on_the_card(tmp_path):
    model = hub.on_hub(models.VisionTransformer(VIT, num_classes=30))
    assert "LABEL_19 and 10 more, in config.json" in model.generate_model_card().text


def test_what_is_no_such_folder_is_one_sentence(tmp_path):
    model = hub.on_hub(made("backbone"))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = (tmp_path / "model.safetensors").read_bytes()

    def refused(values, message, kind=hub.VisionTransformer):
        (tmp_path / "config.json").write_text(values if isinstance(values, str) else json.dumps(values))
        with pytest.raises(CheckpointError, match=message) as told:
            kind.from_pretrained(tmp_path)
        assert "\n" not in str(told.value)

    refused(config, "holds a VisionTransformer, not a MaskedAutoencoder", hub.MaskedAutoencoder)
    refused({**config, "model_type": "vit"}, "describes no model of imagen_fast, but a 'vit'")
    refused({**config, "heads": 5}, "5 heads do not divide a width of 32")
    refused(
        {name: value for name, value in config.items() if name != "depth"}, "no VisionTransformer: 'depth'"
    )
    refused({**config, "depth": 3}, "lacks 'blocks.2")
    refused({**config, "image_size": [16, 16]}, r"'pos_embed' is \(1, 7, 32\) there, \(1, 5, 32\) here")
    refused({**config, "id2label": {"0": "a"}}, "lacks 'head.bias'")
    refused("{", "config.json is damaged")
    (tmp_path / "model.safetensors").write_bytes(weights[:-8])
    refused(config, "damaged or missing")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is damaged or missing"):
        hub.VisionTransformer.from_pretrained(tmp_path)


def test_what_cannot_be_given_is_refused(tmp_path):
    hub.on_hub(made("autoencoder")).save_pretrained(tmp_path)
    assert hub.MaskedAutoencoder.from_pretrained(tmp_path, map_location="meta").decoder.norm.weight.is_meta
    with pytest.raises(InvalidInput, match="'drop_path' cannot be given"):
        hub.MaskedAutoencoder.from_pretrained(tmp_path, drop_path=0.1)


def test_pushing_uploads_the_folder(monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, token=None):
            uploaded["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            uploaded["private"] = private
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **others):
            uploaded[repo_id] = {file.name: file.read_text("latin1") for file in Path(folder_path).iterdir()}
            return f"https://huggingface.co/{repo_id}/commit/0"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    address = hub.on_hub(made("backbone")).push_to_hub("somebody/vit", private=True, token="a")
    assert address == "https://huggingface.co/somebody/vit/commit/0"
    assert (uploaded["token"], uploaded["private"]) == ("a", True)
    files = uploaded["somebody/vit"]
    assert set(files) == {"config.json", "model.safetensors", "README.md"}
    assert files["README.md"].count('.from_pretrained("somebody/vit"') == 2


def test_a_repository_is_read_from_the_cache(tmp_path):
    """The Hub's own client, with what it would have downloaded."""
    repository = tmp_path / "models--somebody--vit"
    model = hub.on_hub(made("classifier"))
    model.save_pretrained(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    again = hub.VisionTransformer.from_pretrained("somebody/vit", cache_dir=tmp_path, local_files_only=True)
    assert same(model, again)


def test_transformers_reads_the_same_folder(tmp_path):
    pytest.importorskip("transformers")
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

    from imagen_fast.integrations.transformers_backbone import ImagenFastViTBackbone

    pytest.importorskip("torchvision")
    model = made("classifier").eval()
    save_folder(model, tmp_path, {"training": FACTS, "id2label": {str(n): f"class {n}" for n in range(5)}})
    x = torch.randn(2, 3, 16, 24)
    found = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert found.config.id2label[3] == "class 3"
    assert same(model, found.vit)
    assert torch.equal(found(x).logits, model(x))
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(x).last_hidden_state, model.forward_features(x))
    backbone = ImagenFastViTBackbone.from_pretrained(tmp_path, out_indices=[1])
    assert backbone(x).feature_maps[0].shape == (2, 32, 2, 3)
    assert list(AutoImageProcessor.from_pretrained(tmp_path).image_mean) == FACTS["mean"]


@pytest.mark.parametrize("size", [(57, 91), (200, 64)])
def test_the_image_processor_sees_what_our_evaluation_sees(size, tmp_path):
    pytest.importorskip("torchvision")
    transformers = pytest.importorskip("transformers")
    import numpy as np
    from PIL import Image

    from imagen_fast.data.decode.picture import DecodedPicture

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    square = models.VisionTransformer(replace(VIT, image_size=(32, 32)))
    save_folder(square, tmp_path, {"training": FACTS})
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    found = processor(picture, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(FACTS[name])[:, None, None] for name in ("mean", "std"))
    shown = ((found * std + mean) * 255).round()
    ours = CenterCrop(FACTS["crop"]).view(DecodedPicture(picture), 32)
    off = (shown - torch.from_numpy(np.array(ours)).permute(2, 0, 1)).abs()
    assert off.max() <= 1


def test_what_no_configuration_says_is_refused():
    timm = pytest.importorskip("imagen_fast.integrations.timm", exc_type=ImportError)
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    for pooling in ({"global_pool": "max"}, {"global_pool": "token", "fc_norm": True}, {"global_pool": ""}):
        with pytest.raises(InvalidInput, match="pools its tokens as no configuration of ours says"):
            hub.on_hub(timm.VisionTransformer(**sizes, **pooling))
    shorter = timm.VisionTransformer(**sizes)
    shorter.blocks = shorter.blocks[:1]
    with pytest.raises(InvalidInput, match="the model has 1 blocks, and its configuration 2"):
        hub.on_hub(shorter)


def test_a_model_on_the_hub_can_be_copied_and_changed_alone(tmp_path):
    model = made("classifier")
    shared = hub.on_hub(model)
    for twin in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert twin.about == {}
    head = model.head
    shared.head = nn.Linear(head.in_features, 7)
    assert model.head is head
    shared.save_pretrained(tmp_path)
    again = hub.VisionTransformer.from_pretrained(tmp_path)
    assert torch.equal(again.head.weight, shared.head.weight)
    with pytest.raises(InvalidInput, match="'depth' cannot be given"):
        hub.VisionTransformer.from_pretrained(tmp_path, depth=1)


@pytest.mark.parametrize("sizes", ["fixed", "divisible", "padded"])
def test_which_images_it_takes_is_kept(sizes, tmp_path):
    save_folder(models.VisionTransformer(VIT, sizes=sizes), tmp_path, {})
    assert hub.VisionTransformer.from_pretrained(tmp_path).patch_embed.sizes == sizes


def test_another_head_has_no_names_and_what_cannot_come_back_is_not_saved(tmp_path):
    model = hub.on_hub(made("classifier"), labels(("a", "b", "c", "d", "e")))
    model.head = nn.Linear(32, 7)
    model.save_pretrained(tmp_path / "seven")
    assert hub.VisionTransformer.from_pretrained(tmp_path / "seven").head.out_features == 7
    model.head = nn.Identity()
    model.save_pretrained(tmp_path / "none")
    assert same(hub.VisionTransformer.from_pretrained(tmp_path / "none"), model)
    for head in (nn.Linear(32, 5, bias=False), nn.Sequential(nn.Linear(32, 5))):
        model.head = head
        with pytest.raises(InvalidInput, match="the model has been changed since it was made"):
            model.save_pretrained(tmp_path / "other")


def test_modes_and_hooks_are_each_models_own():
    model = models.VisionTransformer(VIT, drop_path=0.5).train()
    twin, calls = hub.on_hub(model).eval(), []
    twin.blocks[0].register_forward_hook(lambda *call: calls.append(call))
    assert model.blocks[1].drop_path.training
    model(torch.randn(1, 3, 16, 24))
    assert calls == []
    assert same(model, twin)
    with torch.no_grad():
        model.cls_token.fill_(3.0)
    assert torch.equal(model.cls_token, twin.cls_token)


def test_a_name_that_can_be_none_is_one_sentence():
    with pytest.raises(CheckpointError, match="is neither a folder nor the name of a repository"):
        hub.VisionTransformer.from_pretrained("/nowhere/at/all")
