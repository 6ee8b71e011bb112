"""What a block remembers while an image is generated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """A step fills the slots `first` to `last` of a cache, and sees those from `low` to `last`.

    `mask` [last - first, last - low] says which of them each of its tokens sees; None: all.
    """

    first: int
    last: int
    low: int
    mask: Tensor | None

    def to(self, device: torch.device) -> View:
        return self._replace(mask=None if self.mask is None else self.mask.to(device))


class Cache:
    """Keys and values [B, slots, H, D] of the tokens so far, in the order of their generation."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def at(self, view: View) -> Cache:
        """This cache, for the next step."""
        self.view = view
        return self

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k and v [B, m, H, D] in their slots; attention of q to what the step sees: [B, m, H, D]."""
        first, last, low, mask = self.view
        self.keys[:, first:last] = k
        self.values[:, first:last] = v
        q, k, v = (x.transpose(1, 2) for x in (q, self.keys[:, low:last], self.values[:, low:last]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
