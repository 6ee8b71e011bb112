"""transformers' models: attention through their interface, and the parts that are not behind one."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from imagen_fast.integrations.accelerate import imagegpt, patches, vitmae
from imagen_fast.integrations.accelerate.swaps import Kind, Swap, Trial, Types, Undo, serve
from imagen_fast.integrations.accelerate.trial import IMAGES, Work
from imagen_fast.integrations.transformers_attention import NAME, attention, register_beside, theirs_of

# Where a config does not tell: an image of 224 pixels in patches of 16, and its class token.
_USUAL_TOKENS = 197


class ThroughTheInterface:
    """Attention that asks its config which function computes it, as nearly all of their vision models do.

    `set_attn_implementation` of a model does not reach modules with a config of their own, such as ViTMAE's
    decoder; here every module's own config says it.
    """

    kind: Kind = "attention"

    def fits(self, module: nn.Module) -> bool:
        for cls in type(module).__mro__:
            if cls.__name__.endswith("Attention") and hasattr(module, "config"):
                return hasattr(sys.modules.get(cls.__module__), "ALL_ATTENTION_FUNCTIONS")
        return False

    def refusal(self, module: Any) -> str | None:
        if getattr(module, "is_causal", False):
            return "it is causal"
        asked = module.config._attn_implementation
        if asked == NAME or hasattr(module, "imagen_fast_types"):
            return "it is ours already"
        if _biased(module.config) and next(module.parameters()).device.type == "cpu":
            return "ours has no fast way for a bias of relative positions on the CPU"
        if theirs_of(asked) == "eager":
            return "its attn_implementation is eager, which gives the probabilities"
        return None

    def remark(self, module: Any) -> str | None:
        rate = getattr(module, "attention_dropout", None) or getattr(module, "dropout", None)
        rate = getattr(rate, "p", rate)
        return f"not in training, where it drops probabilities (rate {rate:g})" if rate else None

    def trial(self, module: Any) -> Trial | None:
        config = module.config
        heads = getattr(module, "num_attention_heads", None) or module.num_heads
        width = getattr(module, "head_dim", None) or config.hidden_size // heads
        tokens = _tokens(config)
        device = next(module.parameters()).device
        name = theirs_of(config._attn_implementation)
        theirs = ALL_ATTENTION_FUNCTIONS[name]

        def work(dtype: torch.dtype, autocast: bool) -> Work:
            # In the layout that three projections leave.
            shape = (IMAGES, tokens, heads, width)
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
        # Modules share a config: those that are not marked go on as before.
        ours = register_beside(theirs_of(before))
        config._attn_implementation_internal = ours
        unmark = serve(module, types)

        def undo() -> None:
            unmark()
            if config._attn_implementation == ours:
                config._attn_implementation_internal = before

        return undo


def _biased(config: Any) -> bool:
    """BEiT and its kind."""
    return any(getattr(config, f"use_{which}relative_position_bias", False) for which in ("", "shared_"))


def _tokens(config: Any) -> int:
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if not image or not patch:
        return _USUAL_TOKENS
    (height, width), (p, q) = (x if isinstance(x, (list, tuple)) else (x, x) for x in (image, patch))
    return math.prod((height // p, width // q)) + 1


SWAPS: list[Swap] = [ThroughTheInterface(), *imagegpt.SWAPS, *vitmae.SWAPS, patches.SWAP]
