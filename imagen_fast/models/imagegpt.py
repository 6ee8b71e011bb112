"""Weights of transformers' ImageGPT in our pixel transformer."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imagen_fast.errors import CheckpointError, InvalidInput
from imagen_fast.models.convert import State
from imagen_fast.models.pixel_config import PixelConfig
from imagen_fast.models.pixel_transformer import PixelTransformer

# Theirs to ours, within a block. Their projections are stored as [in, out].
_LAYERS = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
# The causal mask, which older versions stored with the weights.
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)$")


def load_imagegpt(source: nn.Module | str | Path, clusters: np.ndarray | None = None) -> PixelTransformer:
    """A `PixelTransformer` with the weights of transformers' ImageGPTForCausalImageModeling.

    Its logits are equal; token n predicts pixel n, where theirs, one place to the right in a sequence that
    begins with a start token, predicts pixel n + 1 of that sequence.

    Args:
        source: the live model, or a folder that its `save_pretrained` wrote.
        clusters: [colours, 3] of its image processor, on the scale -1..1: the palette. None takes them from
            the folder's `preprocessor_config.json`; without one the palette stays black, and the model
            works on numbers of colours only.

    Raises:
        CheckpointError: the folder holds no such model.
        InvalidInput: the model has options that ours lacks, or no square image of its length.
    """
    if isinstance(source, nn.Module):
        config, state = source.config.to_dict(), source.state_dict()  # type: ignore[union-attr, operator]
    else:
        folder = Path(source)
        try:
            config = json.loads((folder / "config.json").read_text())
            state = load_file(folder / "model.safetensors")
            about = folder / "preprocessor_config.json"
            if clusters is None and about.exists():
                clusters = np.array(json.loads(about.read_text())["clusters"])
        except Exception as error:
            raise CheckpointError(f"{folder} is no folder of a saved ImageGPT: {error}") from error
    model = PixelTransformer(_shapes(config))
    model.load_state_dict(
        {**imagegpt_to_ours(state, model.config.choices), "symbols.palette": _palette(model, clusters)}
    )
    return model


def _shapes(c: dict[str, Any]) -> PixelConfig:
    if c.get("model_type") != "imagegpt":
        raise CheckpointError(f"this is no ImageGPT but {c.get('model_type')!r}")
    plain = {
        "activation_function": "quick_gelu",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for name, value in plain.items():
        if c.get(name, value) != value:
            raise InvalidInput(f"only ImageGPT models with {name} = {value} can be converted, not {c[name]}")
    side = math.isqrt(c["n_positions"])
    if side * side != c["n_positions"]:
        raise InvalidInput(f"{c['n_positions']} positions are no square image")
    return PixelConfig(
        image_size=(side, side),
        colours=c["vocab_size"] - 1,
        embed_dim=c["n_embd"],
        depth=c["n_layer"],
        heads=c["n_head"],
        mlp_ratio=(c.get("n_inner") or 4 * c["n_embd"]) / c["n_embd"],
        norm_eps=c["layer_norm_epsilon"],
        norm="rms",
        activation="quick_gelu",
    )


def imagegpt_to_ours(state: State, colours: int) -> State:
    """Weights, or their gradients, of a model of so many colours, under our names."""
    table = state["transformer.wte.weight"]
    ours: State = {
        "embed.table": table[:colours],
        "embed.start": table[colours:],  # their start token
        "pos_embed": state["transformer.wpe.weight"][None],
        "norm.weight": state["transformer.ln_f.weight"],
        "head.project.weight": state["lm_head.weight"],
        "head.project.bias": torch.zeros(colours),
    }
    taken = ("transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "lm_head.weight")
    for name, value in state.items():
        match = re.match(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)$", name)
        if match and match[2] in _LAYERS:
            turned = value.t() if match[3] == "weight" and value.dim() == 2 else value
            ours[f"blocks.{match[1]}.{_LAYERS[match[2]]}.{match[3]}"] = turned
        elif name not in taken and not _MASKS.match(name):
            raise CheckpointError(f"this is no ImageGPT checkpoint: it holds {name!r}")
    return {name: value.detach().clone() for name, value in ours.items()}


def _palette(model: PixelTransformer, clusters: np.ndarray | None) -> Tensor:
    """Their colours as bytes, as their image processor takes them back."""
    if clusters is None:
        return model.symbols.palette
    if clusters.shape != model.symbols.palette.shape:
        wanted = list(model.symbols.palette.shape)
        raise InvalidInput(f"clusters must be {wanted}, a colour each, not {list(clusters.shape)}")
    return torch.from_numpy(np.rint(127.5 * (clusters + 1.0)).clip(0, 255).astype(np.uint8))
