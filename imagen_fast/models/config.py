"""The shapes of a vision transformer, and the names they go by."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from imagen_fast.errors import InvalidInput


@dataclass(frozen=True)
class ViTConfig:
    """A plain vision transformer (Dosovitskiy et al. 2021).

    Sizes are in pixels; `image_size` is (height, width). `positions` says whether the position embedding is
    the fixed two-dimensional sine and cosine table of MAE or learned. `pool` is what the head reads:
    the class token, or the mean over patches.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    channels: int = 3
    embed_dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    positions: Literal["sincos", "learned"] = "sincos"
    pool: Literal["token", "avg"] = "token"

    def __post_init__(self) -> None:
        height, width = self.image_size
        positive(embed_dim=self.embed_dim, depth=self.depth, heads=self.heads, channels=self.channels)
        if self.patch_size < 1 or height % self.patch_size or width % self.patch_size:
            raise InvalidInput(
                f"a patch of {self.patch_size} pixels does not divide an image of {height}x{width}"
            )
        if self.embed_dim % self.heads:
            raise InvalidInput(f"{self.heads} heads do not divide a width of {self.embed_dim}")
        if self.positions == "sincos" and self.embed_dim % 4:
            raise InvalidInput(f"sine and cosine positions need a width that 4 divides, not {self.embed_dim}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_values(self) -> int:
        """Values in one patch, P * P * C."""
        return self.patch_size**2 * self.channels

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViTConfig:
        return cls(**{**values, "image_size": tuple(values["image_size"])})


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder of a masked autoencoder.

    `full`: self-attention over visible and hidden tokens (He et al. 2021). `cross`: hidden queries
    attend to visible tokens only, so each can be predicted without the others (Fu et al. 2024, CrossMAE).
    """

    kind: Literal["full", "cross"] = "full"
    embed_dim: int = 512
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.kind not in ("full", "cross"):
            raise InvalidInput(f"the decoder must be 'full' or 'cross', not {self.kind!r}")
        positive(decoder_dim=self.embed_dim, decoder_depth=self.depth, decoder_heads=self.heads)
        if self.embed_dim % self.heads:
            raise InvalidInput(f"{self.heads} heads do not divide a decoder width of {self.embed_dim}")
        if self.embed_dim % 4:
            raise InvalidInput(f"sine and cosine positions need a width that 4 divides, not {self.embed_dim}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise InvalidInput(f"{name.replace('_', ' ')} must be at least 1, not {value}")


# Width, depth, heads: Dosovitskiy et al. 2021, table 1; tiny and small after DeiT (Touvron et al. 2021).
# nano is ours, for images of a few pixels.
_SIZES = {
    "nano": (96, 4, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}

# The decoder's width, depth, heads: MAE's own from base up, narrower in proportion below it.
_DECODERS = {"nano": (64, 2, 4), "tiny": (192, 4, 6)}

MODELS = tuple(_SIZES)


def vit_config(model: str, **changes: Any) -> ViTConfig:
    """The configuration that a name stands for, with fields changed.

    Raises:
        InvalidInput: an unknown name.
    """
    if model not in _SIZES:
        raise InvalidInput(f"model must be one of {', '.join(MODELS)}, not {model!r}")
    width, depth, heads = _SIZES[model]
    return replace(ViTConfig(embed_dim=width, depth=depth, heads=heads), **changes)


def decoder_config(model: str, **changes: Any) -> DecoderConfig:
    """The decoder that goes with a named backbone; fields given as None keep their default."""
    width, depth, heads = _DECODERS.get(model, (512, 8, 16))
    given = {k: v for k, v in changes.items() if v is not None}
    return replace(DecoderConfig(embed_dim=width, depth=depth, heads=heads), **given)
