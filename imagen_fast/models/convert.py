"""Weights to and from timm's vision transformers and transformers' ViTMAE, and from its ViT.

Our backbone has timm's parameter names, so only the shapes' record needs converting there. ViTMAE and ViT
keep q, k and v apart and name everything their own way; both naming schemes (transformers 4 and 5) are read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models.config import DecoderConfig, ViTConfig
from imagen_fast.models.mae import MaskedAutoencoder
from imagen_fast.models.vit import VisionTransformer

State = dict[str, Tensor]

# transformers 4 (and the checkpoints on its hub) to transformers 5.
_OLD_NAMES = (
    (r"^vit\.encoder\.layer\.", "vit.layers."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),  # what save_pretrained of 5.x writes
    (r"attention\.attention\.query\.", "attention.q_proj."),
    (r"attention\.attention\.key\.", "attention.k_proj."),
    (r"attention\.attention\.value\.", "attention.v_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
    (r"intermediate\.dense\.", "mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)

# transformers 5 to ours, outside the blocks.
_VITMAE_NAMES = {
    "vit.embeddings.cls_token": "encoder.cls_token",
    "vit.embeddings.position_embeddings": "encoder.pos_embed",
    "vit.embeddings.patch_embeddings.projection": "encoder.patch_embed.proj",
    "vit.layernorm": "encoder.norm",
    "decoder.mask_token": "decoder.mask_token",
    "decoder.decoder_pos_embed": "decoder.pos_embed",
    "decoder.decoder_embed": "decoder.embed",
    "decoder.decoder_norm": "decoder.norm",
    "decoder.decoder_pred": "decoder.pred",
}
_VITMAE_BLOCKS = {"vit.layers": "encoder.blocks", "decoder.decoder_layers": "decoder.blocks"}
_VITMAE_LAYERS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# What a ViT has for its own pretraining only.
_LEFT_OUT = ("pooler.", "vit.pooler.", "embeddings.mask_token", "vit.embeddings.mask_token")
_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def _vitmae_names(state: State) -> State:
    for old, new in _OLD_NAMES:
        state = {re.sub(old, new, name): value for name, value in state.items()}
    return state


def vitmae_to_ours(state: State) -> State:
    """A ViTMAEForPreTraining state dict under our names, q, k and v joined."""
    state = _vitmae_names(state)
    ours: State = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if name in _VITMAE_NAMES:
            ours[_VITMAE_NAMES[name]] = value
        elif stem in _VITMAE_NAMES:
            ours[f"{_VITMAE_NAMES[stem]}.{kind}"] = value
        elif match := re.match(r"(vit\.layers|decoder\.decoder_layers)\.(\d+)\.(.+)$", stem):
            block = f"{_VITMAE_BLOCKS[match[1]]}.{match[2]}"
            if match[3] in _VITMAE_LAYERS:
                ours[f"{block}.{_VITMAE_LAYERS[match[3]]}.{kind}"] = value
            elif match[3] == _QKV[0]:
                parts = [state[f"{match[1]}.{match[2]}.{part}.{kind}"] for part in _QKV]
                ours[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
            elif match[3] not in _QKV:
                raise CheckpointError(f"this is no ViTMAE checkpoint: it holds {name!r}")
        else:
            raise CheckpointError(f"this is no ViTMAE checkpoint: it holds {name!r}")
    return ours


def ours_to_vitmae(state: State) -> State:
    """The state dict of a `MaskedAutoencoder` under the names of transformers 5."""
    names = {ours: theirs for theirs, ours in _VITMAE_NAMES.items()}
    blocks = {ours: theirs for theirs, ours in _VITMAE_BLOCKS.items()}
    layers = {ours: theirs for theirs, ours in _VITMAE_LAYERS.items()}
    theirs: State = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if name in names:
            theirs[names[name]] = value
        elif stem in names:
            theirs[f"{names[stem]}.{kind}"] = value
        else:
            match = re.match(r"(\w+\.blocks)\.(\d+)\.(.+)$", stem)
            assert match, name
            block = f"{blocks[match[1]]}.{match[2]}"
            if match[3] == "attn.qkv":
                for part, rows in zip(_QKV, value.chunk(3), strict=True):
                    theirs[f"{block}.{part}.{kind}"] = rows.contiguous()
            else:
                theirs[f"{block}.{layers[match[3]]}.{kind}"] = value
    return theirs


def _vitmae_shapes(c: dict[str, Any]) -> tuple[ViTConfig, DecoderConfig]:
    """Our configurations from the fields of a ViTMAEConfig."""
    encoder = _vit_shapes(c, "ViTMAE")
    decoder = DecoderConfig(
        embed_dim=c["decoder_hidden_size"],
        depth=c["decoder_num_hidden_layers"],
        heads=c["decoder_num_attention_heads"],
        mlp_ratio=c["decoder_intermediate_size"] / c["decoder_hidden_size"],
    )
    return encoder, decoder


def _vit_shapes(c: dict[str, Any], kind: str, **changes: Any) -> ViTConfig:
    """The backbone's configuration from the fields of a ViTConfig or ViTMAEConfig of transformers."""
    if c.get("hidden_act", "gelu") != "gelu" or not c.get("qkv_bias", True):
        raise InvalidInput(f"only {kind} models with GELU and biases in q, k and v can be converted")
    side = c["image_size"]
    return ViTConfig(
        image_size=(side, side) if isinstance(side, int) else tuple(side),
        patch_size=c["patch_size"],
        channels=c["num_channels"],
        embed_dim=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        mlp_ratio=c["intermediate_size"] / c["hidden_size"],
        norm_eps=c["layer_norm_eps"],
        **changes,
    )


def _read(source: nn.Module | str | Path, kind: str) -> tuple[dict[str, Any], State]:
    """Configuration and weights of a live model of transformers, or of a folder."""
    if isinstance(source, nn.Module):
        return source.config.to_dict(), source.state_dict()  # type: ignore[union-attr, operator]
    folder = Path(source)
    try:
        return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    except Exception as error:
        raise CheckpointError(f"{folder} is no folder of a saved {kind}: {error}") from error


def load_vit(source: nn.Module | str | Path) -> VisionTransformer:
    """Our backbone (and head) with the weights of transformers' ViT.

    The pooler of a ViTModel, a layer that only its own pretraining used, is left out.

    Args:
        source: a live ViTModel or ViTForImageClassification, or a folder that its `save_pretrained` wrote.

    Raises:
        CheckpointError: it is no ViT.
        InvalidInput: it has options that ours lacks.
    """
    config, state = _read(source, "ViT")
    if config.get("model_type") != "vit":
        raise CheckpointError(f"this is no ViT but {config.get('model_type')!r}")
    ours: State = {}
    inner: State = {}
    for name, value in state.items():
        if name.startswith("classifier."):
            ours[name.replace("classifier", "head")] = value
        elif not name.startswith(_LEFT_OUT):
            inner[f"vit.{name.removeprefix('vit.')}"] = value
    ours |= {name.removeprefix("encoder."): value for name, value in vitmae_to_ours(inner).items()}
    model = VisionTransformer(
        _vit_shapes(config, "ViT", positions="learned"),
        num_classes=len(ours["head.bias"]) if "head.bias" in ours else 0,
    )
    model.load_state_dict(ours)
    return model


def load_vitmae(source: nn.Module | str | Path) -> MaskedAutoencoder:
    """A `MaskedAutoencoder` with the weights of transformers' ViTMAE.

    Args:
        source: a live ViTMAEForPreTraining, or a folder that its `save_pretrained` wrote
            (config.json and model.safetensors).
    """
    config, state = _read(source, "ViTMAE")
    model = MaskedAutoencoder(*_vitmae_shapes(config))
    model.load_state_dict(vitmae_to_ours({name: value.detach().clone() for name, value in state.items()}))
    return model


def save_vitmae(model: MaskedAutoencoder, folder: str | Path, mask_ratio: float = 0.75) -> None:
    """Write a folder that `ViTMAEForPreTraining.from_pretrained` loads.

    Raises:
        InvalidInput: ViTMAE cannot express the model (a cross decoder, other outputs, an oblong image).
    """
    encoder, decoder = model.encoder.config, model.decoder.config
    height, width = encoder.image_size
    pixels = (
        isinstance(model.decoder.pred, nn.Linear) and model.decoder.pred.out_features == encoder.patch_values
    )
    if decoder.kind != "full" or not pixels or height != width:
        raise InvalidInput(
            "ViTMAE has only the full decoder, predicts the pixels of a patch, and takes square images"
        )
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "image_size": height,
        "patch_size": encoder.patch_size,
        "num_channels": encoder.channels,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": round(encoder.embed_dim * encoder.mlp_ratio),
        "layer_norm_eps": encoder.norm_eps,
        "decoder_hidden_size": decoder.embed_dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": round(decoder.embed_dim * decoder.mlp_ratio),
        "mask_ratio": mask_ratio,
        "norm_pix_loss": True,
        "qkv_bias": True,
        "hidden_act": "gelu",
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.float().contiguous() for name, value in ours_to_vitmae(model.state_dict()).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def load_timm(source: nn.Module) -> VisionTransformer:
    """Our backbone (and head) with the weights of a live timm VisionTransformer.

    Raises:
        InvalidInput: the model has parts ours lacks (register tokens, layer scale, no class token, ...).
    """
    embed: Any = source.patch_embed
    block: Any = source.blocks[0]  # type: ignore[index]
    state = source.state_dict()
    config = ViTConfig(
        image_size=tuple(embed.img_size),
        patch_size=embed.patch_size[0],
        channels=embed.proj.in_channels,
        embed_dim=source.embed_dim,  # type: ignore[arg-type]
        depth=len(source.blocks),  # type: ignore[arg-type]
        heads=block.attn.num_heads,
        mlp_ratio=block.mlp.fc1.out_features / source.embed_dim,
        norm_eps=block.norm1.eps,
        positions="learned",
        pool=str(source.global_pool),  # type: ignore[arg-type]
    )
    if config.pool not in ("token", "avg"):
        raise InvalidInput(f"only models that pool by 'token' or 'avg' can be converted, not {config.pool!r}")
    sample = torch.linspace(-3, 3, 7)
    if not torch.allclose(block.mlp.act(sample), torch.nn.functional.gelu(sample), atol=1e-6):
        raise InvalidInput(f"only models with the exact GELU can be converted, not {block.mlp.act}")
    model = VisionTransformer(config, num_classes=source.num_classes)  # type: ignore[arg-type]
    ours, theirs = set(model.state_dict()), set(state)
    if ours != theirs:
        odd = sorted(ours ^ theirs)
        raise InvalidInput(
            f"only plain vision transformers can be converted; this one differs in {', '.join(odd[:4])}"
        )
    model.load_state_dict(state)
    return model


def save_timm(model: VisionTransformer, path: str | Path) -> None:
    """Write a safetensors file that a timm model of the same shape loads (`checkpoint_path=`)."""
    state = {name: value.float().contiguous() for name, value in model.state_dict().items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"format": "pt"})
