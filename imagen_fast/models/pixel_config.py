"""The shapes of a pixel transformer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from imagen_fast.errors import InvalidInput
from imagen_fast.models.config import positive, vit_config
from imagen_fast.ops import CausalContext, Neighbourhood, Quadrant, Raster

CONTEXTS: dict[str, type[CausalContext]] = {
    "raster": Raster,
    "quadrant": Quadrant,
    "neighbourhood": Neighbourhood,
}
MOST_LOOKED_UP = 1
"""Pixels of a patch up to which the intensities of its input are looked up in tables, not projected."""


@dataclass(frozen=True)
class PixelConfig:
    """A transformer that predicts an image token by token; a token is a pixel or a square patch of them.

    Args:
        image_size: (height, width) in pixels.
        patch_size: side of the patch that a token stands for, in pixels; 1: tokens are pixels.
        channels: of the image.
        levels: intensities that a channel can take, predicted one channel after the other.
        colours: size of a palette, where a pixel is one of its colours and not `channels` intensities.
        embed_dim, depth, heads, mlp_ratio, norm_eps, norm, activation: of the transformer.
        context: which pixels a prediction may depend on.
        head: `categorical`, a softmax over the levels, or `mixture`, of `mixtures` discretised logistics.
    """

    image_size: tuple[int, int] = (32, 32)
    patch_size: int = 1
    channels: int = 3
    levels: int = 256
    colours: int | None = None
    embed_dim: int = 192
    depth: int = 12
    heads: int = 3
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    norm: Literal["layer", "rms"] = "layer"
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    context: CausalContext = field(default_factory=Raster)
    head: Literal["categorical", "mixture"] = "categorical"
    mixtures: int = 10

    def __post_init__(self) -> None:
        height, width = self.image_size
        positive(
            embed_dim=self.embed_dim,
            depth=self.depth,
            heads=self.heads,
            channels=self.channels,
            mixtures=self.mixtures,
        )
        if self.patch_size < 1 or height % self.patch_size or width % self.patch_size:
            raise InvalidInput(
                f"a patch of {self.patch_size} pixels does not divide an image of {height}x{width}"
            )
        if self.embed_dim % self.heads:
            raise InvalidInput(f"{self.heads} heads do not divide a width of {self.embed_dim}")
        if self.embed_dim % 4:
            raise InvalidInput(f"sine and cosine positions need a width that 4 divides, not {self.embed_dim}")
        if not 2 <= self.levels <= 256:
            raise InvalidInput(f"levels must be 2 to 256, what a byte can hold, not {self.levels}")
        if self.colours is not None and not 2 <= self.colours <= 32768:
            raise InvalidInput(f"a palette must have 2 to 32768 colours, not {self.colours}")
        if self.head not in ("categorical", "mixture"):
            raise InvalidInput(f"head must be 'categorical' or 'mixture', not {self.head!r}")
        if self.head == "mixture" and self.colours is not None:
            raise InvalidInput(
                "a mixture of logistics is over intensities, which a palette's colours are not"
            )
        if isinstance(self.context, Neighbourhood):
            if self.context.radius < 1:
                raise InvalidInput("a prediction needs a neighbourhood of radius 1 or more")
            if self.context.of != "quadrant":
                # No shift of the input brings the pixel at its upper right corner, and none beyond it.
                raise InvalidInput("the neighbourhood of a prediction is that of the quadrant")
        self.context.window(self.grid)  # it must fit

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def values(self) -> int:
        """Values that a token stands for: the colours of its pixels, or the intensities of all channels."""
        return self.patch_size**2 * (1 if self.colours is not None else self.channels)

    @property
    def choices(self) -> int:
        """What one value can be."""
        return self.levels if self.colours is None else self.colours

    @property
    def attended(self) -> CausalContext:
        """Which tokens a token attends to, given that none of them holds its own pixel.

        In raster order each holds the one before it. Else it holds its neighbours to the left, above and
        between those: they bring the pixels that lie one further out.
        """
        if isinstance(self.context, Neighbourhood):
            return replace(self.context, radius=self.context.radius - 1)
        return self.context

    def to_dict(self) -> dict[str, Any]:
        kind = next(name for name, known in CONTEXTS.items() if type(self.context) is known)
        return {**asdict(self), "context": {"kind": kind, **asdict(self.context)}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelConfig:
        context = dict(values["context"])
        kind = CONTEXTS[context.pop("kind")]
        given = {**values, "image_size": tuple(values["image_size"]), "context": kind(**context)}
        return cls(**{f.name: given[f.name] for f in fields(cls)})


def pixel_config(model: str, **changes: Any) -> PixelConfig:
    """The configuration with the width, depth and heads of a named vision transformer, fields changed.

    Raises:
        InvalidInput: an unknown name, or fields that do not go together.
    """
    vit = vit_config(model)
    return PixelConfig(**{"embed_dim": vit.embed_dim, "depth": vit.depth, "heads": vit.heads, **changes})
