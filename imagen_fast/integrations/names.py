"""The names that our backbones have in the registries of other libraries."""

from __future__ import annotations

from imagen_fast.models import ViTConfig, vit_config

# The patches that each size is used with, as in Dosovitskiy et al. 2021, MAE and DINOv2.
_PATCHES = {
    "tiny": (16,),
    "small": (32, 16, 14, 8),
    "base": (32, 16, 14, 8),
    "large": (32, 16, 14),
    "huge": (16, 14),
}
_SIDE = 224


def named_configs() -> dict[str, ViTConfig]:
    """`imagen_fast_vit_small_patch16_224` and the others, each with its shapes and learned positions."""
    return {
        f"imagen_fast_vit_{size}_patch{patch}_{_SIDE}": vit_config(
            size, image_size=(_SIDE, _SIDE), patch_size=patch, positions="learned"
        )
        for size, patches in _PATCHES.items()
        for patch in patches
    }
