"""Our attention in transformers' models, under a name of its own: `attn_implementation="imagen_fast"`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from imagen_fast.integrations.sdpa import plain, scaled_dot_product_attention

NAME = "imagen_fast"
# What `sdpa` adds to the scores or refuses.
_THEIRS = ("softcap", "position_bias")


def register_attention() -> None:
    """Make `attn_implementation="imagen_fast"` known, in `from_pretrained` and `set_attn_implementation`.

    What ours does not serve goes to `sdpa`: causal attention, grouped heads, and what our
    `scaled_dot_product_attention` leaves to PyTorch. The config that `save_pretrained` writes does not name
    it.
    """
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


def register_beside(theirs: str) -> str:
    """Make an implementation known that is ours in modules that are marked for it, else `theirs`; its name.

    A module is marked by `imagen_fast_types`, the types of numbers that ours serves there.
    """
    name = f"{NAME}_or_{theirs}"
    AttentionInterface.register(name, partial(_marked, theirs))
    AttentionMaskInterface.register(name, mask if theirs == "sdpa" else ALL_MASK_ATTENTION_FUNCTIONS[theirs])
    return name


def theirs_of(name: str) -> str:
    """What an implementation of `register_beside` goes to else; any other name as it is."""
    return name.removeprefix(f"{NAME}_or_")


def mask(*, mask_function: Callable, **others: Any) -> Tensor | None:
    """As transformers calls it: that of `sdpa`, bool [B, 1, M, N] or None where all is seen.

    A mask of padding is one row of an image, which lies in memory once: so our attention knows it for one.
    """
    made = sdpa_mask(mask_function=mask_function, **others)
    if made is None or mask_function is not bidirectional_mask_function:
        return made
    return made[:, :, :1].expand(made.shape)


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
    """As transformers calls it, of query, key and value [B, H, N, D].

    Returns:
        The output [B, M, H, D], and no probabilities.
    """
    # A module that does not say is causal, as for `sdpa`.
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    grouped = key.shape[1] != query.shape[1]
    theirs = any(others.get(name) is not None for name in _THEIRS)
    # It warns that it cannot give the probabilities.
    if causal or grouped or theirs or others.get("output_attentions"):
        return sdpa_attention_forward(
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
    ours = plain(query) and query.dtype in getattr(module, "imagen_fast_types", ())
    # Other implementations have masks of another form.
    if attention_mask is not None and theirs != "sdpa":
        ours = False
    function = attention if ours else ALL_ATTENTION_FUNCTIONS[theirs]
    return function(module, query, key, value, attention_mask, **others)
