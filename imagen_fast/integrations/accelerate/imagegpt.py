"""transformers' ImageGPT, which is behind no interface: attention, norm and loss."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.models.imagegpt import modeling_imagegpt as theirs
from transformers.utils.generic import torch_float

from imagen_fast.integrations.accelerate.swaps import ByClass, Swap, Trial, device_of, working_type
from imagen_fast.integrations.accelerate.trial import Work
from imagen_fast.integrations.sdpa import plain
from imagen_fast.ops import Raster, causal_pixel_attention, pixel_cross_entropy
from imagen_fast.ops.dispatch import transformed
from imagen_fast.ops.rms_norm import rms_norm

IGNORED = -100
# Of a trial: an image of 32 x 32 pixels, twice.
_TOKENS = 2048


def _serves(module: Any, x: Tensor) -> bool:
    return working_type(x) in getattr(module, "imagen_fast_types", ()) and not transformed()


class ImageGPTAttention(theirs.ImageGPTAttention):
    """Where nothing is kept from earlier calls, our causal attention; beside a cache PyTorch's, with a mask
    that is right for a static cache too: theirs takes the last of its places for those of the queries.
    """

    def forward(
        self,
        hidden_states: Tensor,
        layer_past: Any = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        cache_position: Tensor | None = None,
        **others: Any,
    ) -> tuple:
        served = _serves(self, hidden_states)
        if not served or self._drops() or self._asked_for_more(*args, **others):
            if cache_position is not None:
                others["cache_position"] = cache_position
            return super().forward(hidden_states, layer_past, attention_mask, *args, **others)
        q, k, v = self.c_attn(hidden_states).unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(2)
        past, kept = 0, None
        if layer_past is not None:
            cache = getattr(layer_past, "self_attention_cache", layer_past)
            # A static cache counts in a tensor, in place.
            past = cache.get_seq_length(self.layer_idx) + 0
            # Of transformers before 5.2: later caches count for themselves.
            where = [] if cache_position is None else [{"cache_position": cache_position}]
            kept = cache.update(k.transpose(1, 2), v.transpose(1, 2), self.layer_idx, *where)
        scale = self._scale()
        if (kept is None or (isinstance(past, int) and past == 0)) and attention_mask is None:
            out = causal_pixel_attention(q, k, v, (1, q.shape[1]), Raster(), scale=scale)
        else:
            keys, values = (k.transpose(1, 2), v.transpose(1, 2)) if kept is None else kept
            out = _beside_cache(q, keys, values, past, attention_mask, scale)
        return self.resid_dropout(self.c_proj(out.flatten(-2))), None

    def _drops(self) -> bool:
        return self.training and self.attn_dropout.p > 0

    @staticmethod
    def _asked_for_more(*args: Any, use_cache: bool | None = None, **others: Any) -> bool:
        """Another's hidden states, or the probabilities."""
        return any(value is not None and value is not False for value in (*args, *others.values()))

    def _scale(self) -> float:
        # Their own function: in transformers 5.0 it cuts off the fraction of the root.
        scale = 1 / torch_float(self.head_dim**0.5) if self.scale_attn_weights else 1.0
        layer: Any = self.layer_idx
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


def _beside_cache(
    q: Tensor, k: Tensor, v: Tensor, past: int | Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Queries at the places from `past` on.

    Args:
        q: [B, M, H, D].
        k, v: [B, H, N, D]; a static cache has more places than are filled.
        mask: [B, 1, 1, n], added to the scores of the first n places.

    Returns:
        [B, M, H, D].
    """
    if mask is not None:
        k, v = k[:, :, : mask.shape[-1]], v[:, :, : mask.shape[-1]]
    places = past + torch.arange(q.shape[1], device=q.device)
    seen = torch.arange(k.shape[2], device=q.device) <= places[:, None]
    if mask is not None:
        seen = mask.to(q.dtype).masked_fill(~seen, float("-inf"))
    out = nn.functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, seen, scale=scale)
    return out.transpose(1, 2)


class ImageGPTLayerNorm(theirs.ImageGPTLayerNorm):
    def forward(self, tensor: Tensor) -> Tensor:
        # Not by autocast, which leaves a norm in the type of its input.
        if tensor.dtype not in getattr(self, "imagen_fast_types", ()) or transformed():
            return super().forward(tensor)
        return rms_norm(tensor, self.weight, self.eps)


class ImageGPTForCausalImageModeling(theirs.ImageGPTForCausalImageModeling):
    """In training with labels the logits never exist, as with other fused losses: the output has none."""

    # transformers' Trainer drops what the signature does not name.
    @functools.wraps(theirs.ImageGPTForCausalImageModeling.forward)
    def forward(self, *args: Any, labels: Tensor | None = None, **others: Any) -> Any:  # type: ignore[override]
        asked = others.get("return_dict")
        as_tuple = not (self.config.return_dict if asked is None else asked)
        # What was put around or upon the head since is asked for each time.
        theirs_alone = as_tuple or _plain_head(self) is not None or transformed()
        if labels is None or not self.training or theirs_alone:
            return super().forward(*args, labels=labels, **others)
        made = self.transformer(*args, **others)
        # Token n predicts token n + 1.
        loss = pixel_cross_entropy(
            made.last_hidden_state[:, :-1], self.lm_head.weight, labels[:, 1:], ignore_index=IGNORED
        )
        kept = {name: value for name, value in made.items() if name != "last_hidden_state"}
        return CausalLMOutputWithCrossAttentions(loss=loss, **kept)


def _norm_trial(norm: Any, model: nn.Module) -> Trial:
    size, device = len(norm.weight), device_of(norm)

    def work(dtype: torch.dtype, autocast: bool) -> Work:
        x, weight = (
            torch.randn(shape, dtype=dtype, device=device, requires_grad=True)
            for shape in ((_TOKENS, size), (size,))
        )

        def through(x: Tensor, weight: Tensor) -> Tensor:
            return x / torch.sqrt(x.square().mean(-1, keepdim=True) + norm.eps) * weight

        return Work(through, lambda x, weight: rms_norm(x, weight, norm.eps), (x, weight))

    return Trial(size, work)


def _plain_head(module: Any) -> str | None:
    head = module.lm_head
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hung = any(getattr(head, name) for name in hooks) or "forward" in vars(head)
    if type(head) is not nn.Linear or head.bias is not None or hung or not plain(head.weight):
        return "its lm_head is more than a product"
    if head.weight.device != device_of(module.transformer):
        return "its lm_head is on another device"
    return None


def _dropped(module: Any) -> str | None:
    rate = module.attn_dropout.p
    return f"not in training, where it drops probabilities (attn_pdrop={rate:g})" if rate else None


def _self_attention(module: Any) -> str | None:
    if module.is_cross_attention:
        return "it is cross-attention"
    if module.reorder_and_upcast_attn:
        return "reorder_and_upcast_attn is set"
    return None


SWAPS: list[Swap] = [
    ByClass("attention", theirs.ImageGPTAttention, ImageGPTAttention, _self_attention, noted=_dropped),
    ByClass(
        "norm",
        theirs.ImageGPTLayerNorm,
        ImageGPTLayerNorm,
        tried=_norm_trial,
        types=frozenset({torch.bfloat16}),
    ),
    ByClass("loss", theirs.ImageGPTForCausalImageModeling, ImageGPTForCausalImageModeling, _plain_head),
]
