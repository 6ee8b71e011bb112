"""transformers' models: attention through their interface, and the parts that are not behind one."""

from __future__ import annotations

import math
import sys
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers import activations as theirs
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from imagen_fast.integrations.accelerate import activations, imagegpt, patches, vitmae
from imagen_fast.integrations.accelerate.swaps import Kind, Swap, Trial, Types, Undo, device_of, serve
from imagen_fast.integrations.accelerate.trial import Work, images_of
from imagen_fast.integrations.sdpa import TYPES
from imagen_fast.integrations.transformers_attention import NAME, attention, register_beside, theirs_of
from imagen_fast.ops.gelu import gelu, quick_gelu

# Where a config does not tell: an image of 224 pixels in patches of 16, and its class token.
_USUAL_TOKENS = 197

# Modules that are ours through a config, by its id: it has no hash.
_MARKED: dict[int, weakref.WeakSet[nn.Module]] = {}


class ThroughTheInterface:
    """Attention that asks its config which function computes it, as nearly all of their vision models do.

    `set_attn_implementation` of a model does not reach modules with a config of their own, such as ViTMAE's
    decoder; here every module's own config says it.
    """

    kind: Kind = "attention"
    types: Types = TYPES

    def fits(self, module: nn.Module) -> bool:
        for cls in type(module).__mro__:
            if cls.__name__.endswith("Attention") and hasattr(module, "config"):
                return hasattr(sys.modules.get(cls.__module__), "ALL_ATTENTION_FUNCTIONS")
        return False

    def refusal(self, module: Any) -> str | None:
        if getattr(module, "is_causal", True):
            return "it is causal, or does not say"
        if "Text" in type(module.config).__name__:
            return "it is of a text model, which may call it as causal"
        asked = module.config._attn_implementation
        if asked == NAME or (asked != theirs_of(asked) and hasattr(module, "imagen_fast_types")):
            return "it is ours already"
        if _heads(module) is None:
            return "it does not say how many heads it has, or how wide"
        if hasattr(module.config, "window_size"):
            return "it attends within windows, which are none of the sizes that a trial knows"
        if _biased(module.config) and device_of(module) == torch.device("cpu"):
            return "ours has no fast way for a bias of relative positions on the CPU"
        if theirs_of(asked) == "eager":
            return "its attn_implementation is eager, which gives the probabilities"
        return None

    def remark(self, module: Any) -> str | None:
        named = (getattr(module, name, None) for name in ("attention_dropout", "dropout", "dropout_prob"))
        rate = next((getattr(rate, "p", rate) for rate in named if rate), None)
        return f"not in training, where it drops probabilities (rate {rate:g})" if rate else None

    def trial(self, module: Any, model: nn.Module) -> Trial | None:
        config, device = module.config, device_of(module)
        heads, width = _heads(module) or (1, 1)
        tokens = _tokens(config)
        name = theirs_of(config._attn_implementation)
        theirs = ALL_ATTENTION_FUNCTIONS[name]

        def work(dtype: torch.dtype, autocast: bool) -> Work:
            # In the layout that three projections leave.
            shape = (images_of(tokens), tokens, heads, width)
            q, k, v = (torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for _ in range(3))

            def through(function: Any) -> Any:
                def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                    turned = (x.transpose(1, 2) for x in (q, k, v))
                    return function(module, *turned, None, scaling=width**-0.5, dropout=0.0)[0]

                return run

            return Work(through(theirs), through(attention), (q, k, v))

        return Trial((heads, width, tokens, name), work)

    def apply(self, module: Any, types: Types) -> Undo:
        config, before = module.config, module.config._attn_implementation
        # Modules, and models too, share a config: those that are not marked go on as before.
        ours = register_beside(theirs_of(before))
        if id(config) not in _MARKED:
            _MARKED[id(config)] = weakref.WeakSet()
            weakref.finalize(config, _MARKED.pop, id(config))
        marked = _MARKED[id(config)]
        if before != ours:  # the config's user has chosen anew since
            marked.clear()
        marked.add(module)
        unmark = serve(module, types)
        module.imagen_fast_beside = Beside(config, theirs_of(before))

        def undo() -> None:
            unmark()
            vars(module).pop("imagen_fast_beside", None)
            marked.discard(module)
            if not marked and config._attn_implementation == ours:
                config._attn_implementation_internal = theirs_of(before)

        return undo


class GELUActivation(activations.Served, theirs.GELUActivation):
    function = staticmethod(gelu)


class QuickGELUActivation(activations.Served, theirs.QuickGELUActivation):
    function = staticmethod(quick_gelu)


class Beside:
    """At a module whose config has a name that is registered here alone: it comes back with whole models."""

    def __init__(self, config: Any, theirs: str) -> None:
        self.config, self.theirs = config, theirs
        config._attn_implementation_internal = _Name(register_beside(theirs))

    def __reduce__(self) -> tuple[type[Beside], tuple[Any, str]]:
        return Beside, (self.config, self.theirs)


class _Name(str):
    """Of a config that is copied or pickled by itself it is their own name, which every process knows."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (theirs_of(self),)


def _heads(attention: Any) -> tuple[int, int] | None:
    """How many, and how wide; None where that is not to be told."""
    where = (attention, attention.config)
    names = ("num_attention_heads", "num_heads")
    heads = next((n for place in where for name in names if (n := getattr(place, name, None))), None)
    if not isinstance(heads, int):
        return None
    names = ("head_dim", "attention_head_size")
    width = next((n for name in names if (n := getattr(attention, name, None))), None)
    if width is None:
        made = (getattr(getattr(attention, name, None), "out_features", None) for name in ("q_proj", "query"))
        width = next((n // heads for n in made if n), None)
    return (heads, width) if isinstance(width, int) else None


def _biased(config: Any) -> bool:
    """BEiT and its kind."""
    return any(getattr(config, f"use_{which}relative_position_bias", False) for which in ("", "shared_"))


def _tokens(config: Any) -> int:
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not image or not patch:
        return _USUAL_TOKENS
    (height, width), (p, q) = (x if isinstance(x, (list, tuple)) else (x, x) for x in (image, patch))
    patches = math.prod((height // p, width // q))
    if hasattr(config, "mask_ratio") and not _of_decoder(config):
        patches = int(patches * (1 - config.mask_ratio))
    return patches + 1


def _tokens_of(model: Any) -> int:
    """Of the largest of its parts."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return max((_tokens(config) for config in configs if config is not None), default=_USUAL_TOKENS)


def _of_decoder(config: Any) -> bool:
    """ViTMAE's decoder has a copy of the config, with its own sizes in place of the encoder's."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return all(getattr(config, name) == getattr(config, f"decoder_{name}") for name in names)


SWAPS: list[Swap] = [
    ThroughTheInterface(),
    *imagegpt.SWAPS,
    *vitmae.SWAPS,
    patches.SWAP,
    *activations.swaps(
        _tokens_of, {theirs.GELUActivation: GELUActivation, theirs.QuickGELUActivation: QuickGELUActivation}
    ),
]
