"""Our attention under the name that transformers' models choose theirs by: `attn_implementation="imagen_fast"`."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from imagen_fast.integrations.sdpa import scaled_dot_product_attention

NAME = "imagen_fast"
# What `sdpa` takes beside, or refuses.
_THEIRS = ("softcap", "position_bias", "sliding_window")


def register_attention() -> None:
    """Make `attn_implementation="imagen_fast"` known, in `from_pretrained` and `set_attn_implementation`.

    What ours does not serve goes to PyTorch's attention, as `sdpa` sends it.
    """
    AttentionInterface.register(NAME, attention)
    # Masks are theirs: boolean, or none where all is seen.
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def register_beside(theirs: str) -> str:
    """Make an implementation known that is ours in modules that are marked for it, else `theirs`; its name.

    A module is marked by `imagen_fast_types`, the types of numbers that ours serves there.
    """
    name = f"{NAME}_or_{theirs}"
    AttentionInterface.register(name, partial(_marked, theirs))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[theirs])
    return name


def theirs_of(name: str) -> str:
    """What an implementation of `register_beside` goes to else; any other name as it is."""
    return name.removeprefix(f"{NAME}_or_")


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: query, key and value [B, H, N, D]; the output [B, M, H, D], and no probabilities."""
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    grouped = key.shape[1] != query.shape[1]
    if causal or grouped or any(others.get(name) is not None for name in _THEIRS):
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            dropout=dropout,
            is_causal=is_causal,
            **others,
        )
    out = scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


def _marked(
    theirs: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    ours = query.dtype in getattr(module, "imagen_fast_types", ())
    # Other implementations have masks of another form.
    if attention_mask is not None and theirs != "sdpa":
        ours = False
    function = attention if ours else ALL_ATTENTION_FUNCTIONS[theirs]
    return function(module, query, key, value, attention_mask, **others)
