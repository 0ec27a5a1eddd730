"""Sizes of the network, by name; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.registry import Registry


@dataclass(frozen=True)
class NetSize:
    """What tells one size of :class:`~adaptive.textscale.network.TextNet` from another.

    Attributes:
        backbone: name in timm of a network with features at strides 4, 8, 16 and 32.
        channels: of the pyramid and of the head.
    """

    backbone: str
    channels: int


SIZES: Registry[NetSize] = Registry("size of a text network")

# Chosen by time on a CPU for what a backbone learns from scratch: plain convolutions with few
# channels at stride 4. (ResNet-18 takes about ten times the time of the nano one.)
SIZES.register("nano")(NetSize("mobilenetv4_conv_small", 48))
SIZES.register("small")(NetSize("hgnetv2_b0", 96))
