"""Names by which ``timm.create_model`` makes Quadformers.

``timm.create_model("quadformer_small_patch16_256", num_tokens=100, prior="gain")``. Settings of
:class:`~adaptive.quadformer.model.Quadformer` and of the ViT are given side by side; with
``pretrained=True`` the ViT starts from timm's own weights, its positions resampled to the grid.

Registering costs nothing beside importing timm: each model's code is imported when it is made.
"""

from __future__ import annotations

from typing import Any

from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.models import generate_default_cfgs, register_model

OPTIONS = (
    "prior",
    "num_tokens",
    "max_patch",
    "area_attention",
    "detail",
    "scale_embedding",
)


def _data(side: int) -> dict[str, Any]:
    """How images are prepared: as for the ViTs whose weights these models start from."""
    return {
        "input_size": (3, side, side),
        "mean": IMAGENET_INCEPTION_MEAN,
        "std": IMAGENET_INCEPTION_STD,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "num_classes": 1000,
        "classifier": "vit.head",
        "first_conv": "vit.patch_embed.proj",
    }


default_cfgs = generate_default_cfgs(
    {
        "quadformer_tiny_patch16_256": _data(256),
        "quadformer_small_patch16_256": _data(256),
        "quadformer_base_patch16_256": _data(256),
        "quadformer_large_patch16_256": _data(256),
        "quadformer_tiny_patch14_224": _data(224),
        "quadformer_small_patch14_224": _data(224),
    }
)


@register_model
def quadformer_tiny_patch16_256(pretrained: bool = False, **settings: Any):
    """ViT-Ti/16 at 256 pixels: 16 to 256 tokens."""
    return _create("vit_tiny_patch16_224", pretrained, 256, 16, settings)


@register_model
def quadformer_small_patch16_256(pretrained: bool = False, **settings: Any):
    """ViT-S/16 at 256 pixels: 16 to 256 tokens."""
    return _create("vit_small_patch16_224", pretrained, 256, 16, settings)


@register_model
def quadformer_base_patch16_256(pretrained: bool = False, **settings: Any):
    """ViT-B/16 at 256 pixels: 16 to 256 tokens."""
    return _create("vit_base_patch16_224", pretrained, 256, 16, settings)


@register_model
def quadformer_large_patch16_256(pretrained: bool = False, **settings: Any):
    """ViT-L/16 at 256 pixels: 16 to 256 tokens."""
    return _create("vit_large_patch16_224", pretrained, 256, 16, settings)


@register_model
def quadformer_tiny_patch14_224(pretrained: bool = False, **settings: Any):
    """ViT-Ti/14 at 224 pixels: 16 to 256 tokens."""
    return _create("vit_tiny_patch16_224", pretrained, 224, 14, settings)


@register_model
def quadformer_small_patch14_224(pretrained: bool = False, **settings: Any):
    """ViT-S/14 at 224 pixels: 16 to 256 tokens."""
    return _create("vit_small_patch16_224", pretrained, 224, 14, settings)


def _create(name: str, pretrained: bool, side: int, patch: int, settings: dict[str, Any]):
    from adaptive.quadformer.factory import create_vit
    from adaptive.quadformer.model import Quadformer

    # timm names the configuration of this model, which has no weights; the ViT has its own.
    for key in ("pretrained_cfg", "pretrained_cfg_overlay"):
        settings.pop(key, None)
    options = {key: settings.pop(key) for key in OPTIONS if key in settings}
    vit = create_vit(name, pretrained, **({"img_size": side, "patch_size": patch} | settings))
    return Quadformer(vit, **options)
