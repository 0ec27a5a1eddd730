"""Makes a Quadformer by the name of a timm ViT."""

from __future__ import annotations

from typing import Any

from torch import nn

from adaptive.core.errors import UserError
from adaptive.quadformer.model import Quadformer


def create(
    name: str = "vit_tiny_patch16_224",
    num_classes: int = 10,
    img_size: int | tuple[int, int] = 224,
    patch_size: int | None = 14,
    pretrained: bool = False,
    *,
    vit_options: dict[str, Any] | None = None,
    **options: Any,
) -> Quadformer:
    """A Quadformer around a ViT that timm makes.

    Args:
        name: of a plain ViT in timm.
        num_classes: classes of its head.
        img_size: side, or height and width, of the images in pixels.
        patch_size: side of the finest patches in pixels; None: the ViT's own.
        pretrained: starts from timm's weights, with positions and patch embedding resampled.
        vit_options: further settings of the ViT, such as ``drop_path_rate``.
        **options: settings of :class:`~adaptive.quadformer.model.Quadformer`.

    Raises:
        UserError: an unknown or unfit model, or weights that cannot be had.
    """
    return Quadformer(
        create_vit(
            name,
            pretrained,
            num_classes=num_classes,
            img_size=img_size,
            **({} if patch_size is None else {"patch_size": patch_size}),
            **(vit_options or {}),
        ),
        **options,
    )


def create_vit(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
    """A model of timm's, with one sentence where its weights cannot be had.

    Raises:
        UserError: a name that timm does not know, settings that the model does not take, or no way
            to the weights.
    """
    import timm

    architecture = name.split(".")[0]
    if not (name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or timm.is_model(architecture)):
        raise UserError(
            f"timm has no model {name!r}: choose one of timm.list_models('vit_*'), such as "
            "vit_small_patch16_224"
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UserError(
            f"{name} does not take {', '.join(sorted(settings))} together ({error}): choose a "
            "plain timm ViT, such as vit_small_patch16_224"
        ) from None
    except Exception as error:
        if not pretrained:
            raise
        # The hub's client, its transport and timm each raise errors of their own.
        raise UserError(
            f"timm's weights for {name} could not be loaded ({type(error).__name__}): set "
            "pretrained=false, or fill the hub's cache where there is a network and set HF_HOME"
        ) from error
