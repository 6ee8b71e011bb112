"""The layers that backbones and decoders share; parameter names are timm's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from imagen_fast.ops import OnGrid, Visible, causal_pixel_attention, masked_patch_attention
from imagen_fast.ops.linear import linear
from imagen_fast.ops.modules import GELU, LayerNorm, QuickGELU, RMSNorm


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


NormName = Literal["layer", "rms"]
ActivationName = Literal["gelu", "quick_gelu"]
NORMS = {"layer": LayerNorm, "rms": RMSNorm}
ACTIVATIONS = {"gelu": GELU, "quick_gelu": QuickGELU}


Context = Visible | OnGrid | None
"""Who may attend to whom: patches that hide, pixels in generation order, or everyone to everyone."""


class Attention(nn.Module):
    """Multi-head self-attention on a fused qkv projection, whose views go to the kernel without a copy."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, context: Context = None, first: int = 0) -> Tensor:
        """[B, N, E] -> [B, N - first, E]: the outputs of tokens `first` and later, which attend to all.

        In generation order all tokens are asked for: `first` is then 0.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)  # [B, N, H, D] each
        if isinstance(context, OnGrid):
            return self.proj(causal_pixel_attention(q, k, v, context.grid, context.context).flatten(-2))
        return self.proj(masked_patch_attention(q[:, first:], k, v, context).flatten(-2))


class CrossAttention(nn.Module):
    """Queries from one set of tokens, keys and values from another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k, v = self.kv(source).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        return self.proj(masked_patch_attention(q, k, v).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, activation: ActivationName = "gelu") -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: a branch is dropped for whole images (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1.0 - self.rate)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        eps: float,
        drop_path: float = 0.0,
        norm: NormName = "layer",
        activation: ActivationName = "gelu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = NORMS[norm](dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = NORMS[norm](dim, eps=eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), activation)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, context: Context = None, first: int = 0) -> Tensor:
        """[B, N, E] -> [B, N - first, E]: of a last block of which no more is read, the exact outputs."""
        x = x[:, first:] + self.drop_path(self.attn(self.norm1(x), context, first))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossBlock(nn.Module):
    """Pre-norm block whose queries attend to other tokens only (Fu et al. 2024, CrossMAE, section 3.2)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=eps)
        self.attn = CrossAttention(dim, heads)
        self.norm2 = LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), source)
        return x + self.mlp(self.norm2(x))


def initialise(module: nn.Module) -> None:
    """MAE's initialisation: Xavier for projections, zeros for biases (use with `Module.apply`)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
