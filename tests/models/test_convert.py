"""Weights of timm and transformers: outputs, losses, gradients of a converted random model equal theirs."""

from __future__ import annotations

import pytest
import torch

from imagen_fast import ops
from imagen_fast.data.masks import masks_from_noise
from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models import DecoderConfig, MaskedAutoencoder, VisionTransformer, ViTConfig
from imagen_fast.models.convert import (
    load_timm,
    load_vit,
    load_vitmae,
    ours_to_vitmae,
    save_timm,
    save_vitmae,
    vitmae_to_ours,
)

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def vitmae():
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=48,
        patch_size=8, decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
        decoder_intermediate_size=64, norm_pix_loss=True, mask_ratio=0.75,
    )  # fmt: skip
    return transformers.ViTMAEForPreTraining(config)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_vitmae_loss_and_gradients_are_equal(vitmae):
    ours = load_vitmae(vitmae)
    image, noise = torch.randn(5, 3, 48, 48), torch.rand(5, 36)
    vitmae.zero_grad()
    theirs = vitmae(image, noise=noise)
    theirs.loss.backward()
    masks = masks_from_noise(noise, 0.75)
    loss = ops.masked_pixel_mse(ours(image, masks.visible, masks.hidden), image, masks.hidden)
    loss.backward()
    assert abs(loss.item() - theirs.loss.item()) <= 1e-6 * theirs.loss.item()
    gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in vitmae.named_parameters()}
    gradients = vitmae_to_ours(gradients)
    checked = 0
    for name, p in ours.named_parameters():
        if p.requires_grad:
            assert relative(p.grad, gradients[name]) <= 1e-5, name
            checked += 1
    assert checked == len(gradients) - 2  # all but the two fixed tables of positions


def test_vitmae_predictions_are_equal(vitmae):
    ours = load_vitmae(vitmae)
    image, noise = torch.randn(2, 3, 48, 48), torch.rand(2, 36)
    masks = masks_from_noise(noise, 0.75)
    with torch.no_grad():
        theirs = vitmae(image, noise=noise).logits.gather(1, masks.hidden[..., None].expand(-1, -1, 192))
        assert relative(ours(image, masks.visible, masks.hidden), theirs) <= 1e-5


def test_vitmae_saves_to_what_transformers_loads(vitmae, tmp_path):
    save_vitmae(load_vitmae(vitmae), tmp_path)
    again = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path)
    for name, value in vitmae.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.config.to_dict()["decoder_hidden_size"] == 32
    vitmae.save_pretrained(tmp_path / "theirs")
    for name, value in load_vitmae(vitmae).state_dict().items():
        assert torch.equal(load_vitmae(tmp_path / "theirs").state_dict()[name], value), name


def test_the_names_of_transformers_4_are_read(vitmae):
    def old(name: str) -> str:
        for new, before in (
            ("vit.layers.", "vit.encoder.layer."),
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(new, before)
        return name

    state = vitmae.state_dict()
    ours = vitmae_to_ours({old(name): value for name, value in state.items()})
    assert ours.keys() == load_vitmae(vitmae).state_dict().keys()
    assert ours_to_vitmae(ours).keys() == state.keys()


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_timm_logits_loss_and_gradients_are_equal(pool):
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=3, num_classes=10, global_pool=pool, class_token=True
    )
    torch.nn.init.normal_(theirs.head.weight, std=0.1)
    ours = load_timm(theirs)
    image, label = torch.randn(4, 3, 64, 64), torch.tensor([1, 2, 3, 4])
    losses = []
    for model in (theirs, ours):
        logits = model(image)
        loss = torch.nn.functional.cross_entropy(logits, label)
        loss.backward()
        losses.append((logits.detach(), loss.item()))
    assert relative(losses[1][0], losses[0][0]) <= 1e-5
    assert abs(losses[1][1] - losses[0][1]) <= 1e-6 * losses[0][1]
    for (name, p), (same, q) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        assert name == same
        assert relative(q.grad, p.grad) <= 1e-5, name


def test_timm_loads_what_is_saved(tmp_path):
    model = VisionTransformer(
        ViTConfig(image_size=(64, 64), embed_dim=192, depth=2, heads=3, positions="learned"), num_classes=5
    )
    save_timm(model, tmp_path / "vit.safetensors")
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=64,
        depth=2,
        num_classes=5,
        checkpoint_path=str(tmp_path / "vit.safetensors"),
    )
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(image), model.eval()(image), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_converted_is_one_sentence(vitmae, tmp_path):
    with pytest.raises(InvalidInput, match="only plain vision transformers"):
        load_timm(timm.create_model("deit3_small_patch16_224", depth=1))  # it scales its layers
    for activation in ("relu", "gelu_tanh", "quick_gelu"):
        with pytest.raises(InvalidInput, match="exact GELU"):
            load_timm(timm.create_model("vit_tiny_patch16_224", depth=1, act_layer=activation))
    with pytest.raises(CheckpointError, match="no ViTMAE checkpoint"):
        vitmae_to_ours({"blocks.0.attn.qkv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no folder of a saved ViTMAE"):
        load_vitmae(tmp_path / "nowhere")
    small = ViTConfig(image_size=(16, 16), patch_size=8, embed_dim=32, depth=1, heads=2)
    cross = MaskedAutoencoder(small, DecoderConfig("cross", 16, 1, 2))
    with pytest.raises(InvalidInput, match="only the full decoder"):
        save_vitmae(cross, tmp_path)
    full = MaskedAutoencoder(small, DecoderConfig("full", 16, 1, 2))
    full.decoder.pred = torch.nn.Identity()  # as the categorical head: no linear layer
    with pytest.raises(InvalidInput, match="predicts the pixels"):
        save_vitmae(full, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("dim", "hidden"), [(784, 4096), (752, 3072), (112, 488)])
def test_any_hidden_width_survives_the_ratio(dim, hidden):
    config = ViTConfig(
        image_size=(8, 8), patch_size=8, embed_dim=dim, depth=1, heads=2, mlp_ratio=hidden / dim
    )
    assert VisionTransformer(config).blocks[0].mlp.fc1.out_features == hidden


def test_any_hidden_width_survives_vitmae(tmp_path):
    config = transformers.ViTMAEConfig(
        hidden_size=112, num_hidden_layers=1, num_attention_heads=2, intermediate_size=488, image_size=8,
        patch_size=4, decoder_hidden_size=112, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=488,
    )  # fmt: skip
    ours = load_vitmae(transformers.ViTMAEForPreTraining(config))
    assert ours.decoder.blocks[0].mlp.fc1.out_features == 488
    save_vitmae(ours, tmp_path)
    again = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path)
    assert again.config.intermediate_size == again.config.decoder_intermediate_size == 488
    assert load_vitmae(tmp_path).encoder.blocks[0].mlp.fc1.out_features == 488


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
def test_vit_tokens_and_logits_are_equal(kind, tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=48,
        patch_size=8, num_labels=5,
    )  # fmt: skip
    theirs = getattr(transformers, kind)(config).eval()
    theirs.save_pretrained(tmp_path)  # under the names of transformers 4
    image = torch.randn(2, 3, 48, 48)
    for source in (theirs, tmp_path):
        ours = load_vit(source)
        with torch.no_grad():
            if kind == "ViTModel":
                expected, found = theirs(image).last_hidden_state, ours.forward_features(image)
            else:
                expected, found = theirs(image).logits, ours(image)
        assert relative(found, expected) <= 1e-5


def test_what_is_no_vit_is_one_sentence(vitmae):
    with pytest.raises(CheckpointError, match="no ViT but 'vit_mae'"):
        load_vit(vitmae)
