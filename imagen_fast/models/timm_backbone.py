"""A model of timm as a backbone: its last map of features, whatever the model is made of.

timm is imported when the first one is built.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imagen_fast.errors import CheckpointError, InvalidInput, MissingPackage
from imagen_fast.models.batch_norm import batch_norms
from imagen_fast.models.config import positive


@dataclass(frozen=True)
class TimmConfig:
    """A model by timm's name, with a tag or without, and the images it takes: (height, width) in pixels."""

    timm: str
    image_size: tuple[int, int] = (224, 224)
    channels: int = 3

    def __post_init__(self) -> None:
        positive(height=self.image_size[0], width=self.image_size[1], channels=self.channels)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TimmConfig:
        return cls(**{**values, "image_size": tuple(values["image_size"])})


class TimmBackbone(nn.Module):
    """Images [B, C, H, W] to the map [B, E, H / stride, W / stride] that timm's `forward_features` ends in.

    Tokens are laid out as a map again, without the class and register tokens before them. Parameters that the
    map does not depend on, as VGG's hidden layers of its classifier, are frozen.

    Attributes:
        network: timm's model without a classifier; the weights have timm's names in it.
        embed_dim: E.
        stride: pixels along a side that one place of the map stands for.

    Raises:
        MissingPackage: timm is not installed.
        InvalidInput: timm has no such model, it does not take such images, or it has no map.
    """

    def __init__(self, config: TimmConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.network = timm_network(config, **({"drop_path_rate": drop_path} if drop_path else {}))
        self.stride = _stride(self.network, config)
        self.network.eval()
        weights = list(self.network.parameters())
        with torch.enable_grad():
            features = self._try()
            gradients = torch.autograd.grad(features.sum(), weights, allow_unused=True)
        self.network.train()
        self.embed_dim: int = features.shape[1]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_features(image)

    def forward_features(self, image: Tensor) -> Tensor:
        """The map of normalised images."""
        network: Any = self.network
        x: Tensor = network.forward_features(image.to(next(network.parameters()).dtype))
        rows, columns = image.shape[2] // self.stride, image.shape[3] // self.stride
        if x.dim() == 3:
            return x[:, x.shape[1] - rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
        return x.permute(0, 3, 1, 2) if getattr(network, "output_fmt", "NCHW") == "NHWC" else x

    def mean_features(self, image: Tensor) -> Tensor:
        """The mean over the map, [B, E]."""
        return self.forward_features(image).mean((2, 3))

    def train(self, mode: bool = True) -> TimmBackbone:
        """As usual, but a batch norm whose weights are frozen keeps its statistics, too."""
        super().train(mode)
        for norm in batch_norms(self):
            norm.train(mode and (norm.weight is None or norm.weight.requires_grad))
        return self

    def _try(self) -> Tensor:
        """The map of one black image."""
        config = self.config
        height, width = config.image_size
        try:
            features = self.forward_features(torch.zeros(1, config.channels, height, width))
        except Exception as error:
            raise _refused(config, error) from error
        if features.shape[2:] != (height // self.stride, width // self.stride):
            raise InvalidInput(
                f"timm's {config.timm} gives no map of features at a stride of {self.stride} for images of "
                f"{height}x{width} pixels; take another size or another model"
            )
        return features


class TimmClassifier(TimmBackbone):
    """A classifier of the mean over the map, normalised."""

    def __init__(self, config: TimmConfig, classes: int, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path)
        self.fc_norm = nn.LayerNorm(self.embed_dim)
        self.head = nn.Linear(self.embed_dim, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.fc_norm(self.mean_features(image)))


def timm_arguments(config: TimmConfig) -> dict[str, Any]:
    """Those of `timm.create_model`, beside the name, for a backbone of such images."""
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": config.channels}
    # The others take images of any size, and no argument of that name.
    if _about(config.timm).fixed_input_size:
        arguments["img_size"] = config.image_size
    return arguments


def timm_network(config: TimmConfig, **more: Any) -> nn.Module:
    """timm's model for such images, without a classifier; `more` are further arguments of its making."""
    arguments = timm_arguments(config)
    try:
        return _timm().create_model(config.timm, **arguments, **more)
    except Exception as error:
        raise _refused(config, error) from error


def timm_pretrained(config: TimmConfig) -> dict[str, Tensor]:
    """The weights that timm has of a model, without the classifier; timm downloads them where it must.

    Raises:
        InvalidInput: there are none.
        CheckpointError: they cannot be had, or do not fit.
    """
    if not _about(config.timm).has_weights:
        raise InvalidInput(f"timm has no pretrained weights of {config.timm}")
    try:
        return timm_network(config, pretrained=True).state_dict()
    except InvalidInput as error:
        raise CheckpointError(f"timm's weights of {config.timm} cannot be had: {error.__cause__}") from error


def timm_classifier(config: TimmConfig) -> tuple[str, ...]:
    """How the names of the classifier's weights begin, which a backbone has none of."""
    names = _about(config.timm).classifier or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def timm_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std, per channel on the scale 0..1, that timm normalises a model's images by."""
    about = _about(name)
    return tuple(about.mean), tuple(about.std)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingPackage(
            "a model of timm needs the package timm: pip install imagen-fast[timm]"
        ) from error
    return timm


def _about(name: str) -> Any:
    """What timm knows of a model's weights and images."""
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() names them all"
        raise InvalidInput(f"timm {timm.__version__} has no model {name!r}; {hint}")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise InvalidInput(f"timm has no weights of that tag for {name!r}: {error}") from error


def _stride(network: Any, config: TimmConfig) -> int:
    try:
        stride: int = network.feature_info[-1]["reduction"]
    except (AttributeError, IndexError, KeyError):
        raise InvalidInput(f"timm's {config.timm} tells of no map of features; take another model") from None
    if any(side % stride for side in config.image_size):
        height, width = config.image_size
        raise InvalidInput(
            f"images for timm's {config.timm} need sides that are multiples of {stride} pixels, not "
            f"{height}x{width}"
        )
    return stride


def _refused(config: TimmConfig, error: Exception) -> InvalidInput:
    height, width = config.image_size
    return InvalidInput(
        f"timm's {config.timm} does not take images of {config.channels}x{height}x{width}: {error}"
    )
