"""Sizes of the network, by name; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.registry import Registry


@dataclass(frozen=True)
class NetSize:
    """What tells one size of :class:`~adaptive.textscale.network.TextNet` from another.

    Attributes:
        backbone: name in timm, of a network with features at strides 4, 8, 16 and 32 or of a ViT.
            Names that other packages register with timm count, such as Quadformer's.
        channels: of the pyramid and of the head.
        patch: side of a ViT's (finest) patches in pixels, 4, 8, 16 or 32; None: the model's own.
    """

    backbone: str
    channels: int
    patch: int | None = None


SIZES: Registry[NetSize] = Registry("size of a text network")

# Chosen by time on a CPU for what a backbone learns from scratch: plain convolutions with few
# channels at stride 4. (ResNet-18 takes about ten times the time of the nano one.)
SIZES.register("nano")(NetSize("mobilenetv4_conv_small", 48))
SIZES.register("small")(NetSize("hgnetv2_b0", 96))
# ViTs that can spend their tokens where text is; with all of them they are timm's plain ones.
SIZES.register("vit")(NetSize("quadformer_tiny_patch16_256", 96))
SIZES.register("vit_small")(NetSize("quadformer_small_patch16_256", 96))
