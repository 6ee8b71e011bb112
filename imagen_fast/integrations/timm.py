"""Our vision transformers in timm's registry, where importing this module puts them.

`timm.create_model("imagen_fast_vit_small_patch16_224", ...)` takes what it takes for timm's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
from timm.layers.helpers import to_2tuple
from timm.layers.patch_embed import resample_patch_embed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from imagen_fast.data.sources import IMAGENET_MEAN, IMAGENET_STD
from imagen_fast.errors import InvalidInput
from imagen_fast.integrations.names import named_configs
from imagen_fast.models import ViTConfig, vit
from imagen_fast.models.vit import Sizes

_Theirs: Any = timm.models.VisionTransformer
_POOLS = ("", "token", "avg", "avgmax", "max")


class PatchEmbed(vit.PatchEmbed):
    """Ours, with what timm's has to say about itself."""

    @property
    def strict_img_size(self) -> bool:
        return self.sizes == "fixed"

    @property
    def dynamic_img_pad(self) -> bool:
        return self.sizes == "padded"

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.side, self.side

    @property
    def img_size(self) -> tuple[int, int]:
        return self.image_size

    @property
    def grid_size(self) -> tuple[int, int]:
        return self.image_size[0] // self.side, self.image_size[1] // self.side

    @property
    def num_patches(self) -> int:
        return self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        return self.side if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        return -(-img_size[0] // self.side), -(-img_size[1] // self.side)

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        side = to_2tuple(patch_size or self.side)
        if side != self.patch_size:
            weight = resample_patch_embed(self.proj.weight.detach(), side)
            self.proj.weight = nn.Parameter(weight, requires_grad=self.proj.weight.requires_grad)
            self.proj.kernel_size = self.proj.stride = side
            self.side = side[0]
        self.image_size = to_2tuple(img_size or self.image_size)


class VisionTransformer(vit.VisionTransformer):
    """Ours, with the arguments, attributes and methods of timm's; what they mean is timm's to say.

    Raises:
        InvalidInput: an argument that timm's takes and ours cannot serve, such as `reg_tokens=4`.
    """

    embedding = PatchEmbed

    # timm's own, which need nothing but what ours has too: whatever a version of timm records beside, it does
    # for ours as well.
    pool = _Theirs.pool
    forward_head = _Theirs.forward_head
    get_classifier = _Theirs.get_classifier
    reset_classifier = _Theirs.reset_classifier
    group_matcher = _Theirs.group_matcher
    no_weight_decay = _Theirs.no_weight_decay
    prune_intermediate_layers = _Theirs.prune_intermediate_layers

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "token",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        fc_norm: bool | None = None,
        dynamic_img_size: bool = False,
        dynamic_img_pad: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **others: Any,
    ) -> None:
        _refuse(others)
        if global_pool not in _POOLS:
            raise InvalidInput(f"global_pool must be one of {_POOLS}, not {global_pool!r}")
        norm_after_pool = global_pool in ("avg", "avgmax", "max") if fc_norm is None else fc_norm
        config = ViTConfig(
            image_size=to_2tuple(img_size),
            patch_size=_side(patch_size),
            channels=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            heads=num_heads,
            mlp_ratio=mlp_ratio,
            positions="learned",
            pool="avg" if norm_after_pool else "token",
        )
        sizes: Sizes = "fixed"
        if dynamic_img_size:
            sizes = "padded" if dynamic_img_pad else "divisible"
        super().__init__(config, num_classes, drop_path_rate, sizes)
        # Which can be called as a whole, as timm's.
        self.blocks = nn.Sequential(*self.blocks)  # type: ignore[assignment]
        self.head_drop = nn.Dropout(drop_rate)
        self.global_pool = global_pool
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.dynamic_img_size = dynamic_img_size
        self.feature_info = [
            {"module": f"blocks.{number}", "num_chs": embed_dim, "reduction": config.patch_size}
            for number in range(depth)
        ]
        # What of timm's ours has, and has not.
        self.num_prefix_tokens, self.has_class_token = 1, True
        self.num_reg_tokens, self.no_embed_class, self.pool_include_prefix = 0, False, False
        self.attn_pool = None
        self.to(device=device, dtype=dtype)

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(image))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        if output_fmt not in ("NCHW", "NLC"):
            raise InvalidInput(f"output_fmt must be NCHW or NLC, not {output_fmt!r}")
        chosen, last = feature_take_indices(len(self.blocks), indices)
        end = last if stop_early or intermediates_only else len(self.blocks) - 1
        *taken, x_end = self.intermediates(x, [*sorted(set(chosen)), end])
        if norm:
            taken = [self.norm(tokens) for tokens in taken]
        prefixes = [tokens[:, :1] for tokens in taken]
        maps = [tokens[:, 1:] for tokens in taken]
        if output_fmt == "NCHW":
            grid = self.patch_embed.grid_of(x)
            maps = [tokens.transpose(1, 2).unflatten(-1, grid).contiguous() for tokens in maps]
        if output_dict:
            named: dict[str, Any] = {"image_intermediates": maps}
            if return_prefix_tokens:
                named["image_intermediates_prefix"] = prefixes
            if not intermediates_only:
                named["image_features"] = self.norm(x_end)
            return named
        found: list[Any] = list(zip(maps, prefixes, strict=True)) if return_prefix_tokens else maps
        return found if intermediates_only else (self.norm(x_end), found)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Any]:
        return self.forward_intermediates(
            x,
            n if isinstance(n, int) else list(n),
            return_prefix_tokens,
            norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        # A shape that cannot be is refused before anything is changed.
        config = replace(
            self.config,
            image_size=to_2tuple(img_size or self.config.image_size),
            patch_size=_side(patch_size or self.config.patch_size),
        )
        _Theirs.set_input_size(self, config.image_size, (config.patch_size, config.patch_size))
        self.config = config


def _side(patch_size: int | tuple[int, int]) -> int:
    height, width = to_2tuple(patch_size)
    if height != width:
        raise InvalidInput(f"patches must be square, not {height}x{width}")
    return height


def _refuse(others: dict[str, Any]) -> None:
    """Arguments of timm's own that ours has not are taken where they say what ours is anyway."""
    theirs = inspect.signature(_Theirs).parameters
    for name, value in others.items():
        if name not in theirs or value != theirs[name].default:
            raise InvalidInput(f"imagen_fast's vision transformers cannot be made with {name}={value!r}")


def _entry_point(name: str, config: ViTConfig) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        shapes = {
            "patch_size": config.patch_size,
            "embed_dim": config.embed_dim,
            "depth": config.depth,
            "num_heads": config.heads,
        }
        return build_model_with_cfg(
            VisionTransformer,
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"},
            **{**shapes, **kwargs},
        )

    create.__name__ = create.__qualname__ = name
    return create


default_cfgs = generate_default_cfgs(
    {
        name: {
            "num_classes": 1000,
            "input_size": (config.channels, *config.image_size),
            "fixed_input_size": True,
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        }
        for name, config in named_configs().items()
    }
)
__all__ = ["PatchEmbed", "VisionTransformer"]
for _name, _config in named_configs().items():
    # Among this module's names, as `register_model` puts them into `__all__`.
    globals()[_name] = register_model(_entry_point(_name, _config))
