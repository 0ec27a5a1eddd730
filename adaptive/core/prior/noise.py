"""Noise, the baseline that every prior must beat.

Shapes: B images, C channels, g samples along a side, S nodes that may split.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.prior.base import PRIORS, Prior
from adaptive.core.solvers.quadtree.geometry import Geometry

SAMPLES = 8  # pixels along a side that tell one image from another
BITS = 31  # hashes stay below 2**31, so that products of two fit a signed 64-bit integer


@PRIORS.register("random")
class RandomPrior(Prior):
    """Uniform noise in [0, 1) for every node, a function of the image, the seed and the node.

    The same image gets the same noise in any batch, on any device and in any process; other images
    get other noise. alpha is 0: areas do not matter.

    Args:
        seed: another one gives other noise.
    """

    alpha = 0.0

    def __init__(self, *, seed: int = 0, alpha: float | None = None):
        super().__init__(alpha=alpha)
        self.seed = seed

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        node_S = torch.arange(geometry.splittable, device=image_BCHW.device)
        hash_BS = _mix(_mix(node_S) ^ self._keys(image_BCHW)[:, None])
        # Of 31 bits, as many as a float32 holds: all would round up to 1 now and then.
        noise_BS = (hash_BS >> (BITS - 24)).float() / 2**24
        sizes = [rows * cols for rows, cols in geometry.shapes[:-1]]
        return [
            part.unflatten(1, shape)
            for part, shape in zip(noise_BS.split(sizes, 1), geometry.shapes, strict=False)
        ]

    def _keys(self, image_BCHW: Tensor) -> Tensor:
        """A number for each image, [B], from samples of its pixels in bytes."""
        height, width = image_BCHW.shape[2:]
        step = max(1, height // SAMPLES), max(1, width // SAMPLES)
        sample_BCgg = image_BCHW[:, :, step[0] // 2 :: step[0], step[1] // 2 :: step[1]]
        byte_BP = (sample_BCgg * 255).round().long().flatten(1) & 255
        place_P = torch.arange(byte_BP.shape[1], device=image_BCHW.device)
        # Each byte at its place is a number of its own; their hashes add up.
        sum_B = _mix(place_P * 256 + byte_BP).sum(1) & (2**BITS - 1)
        return _mix(sum_B ^ (self.seed & (2**BITS - 1)))


def _mix(value: Tensor) -> Tensor:
    """Scatters whole numbers below 2**31 over that range, one to one."""
    mask = 2**BITS - 1
    value = (value ^ (value >> 16)) * 0x2C1B3C6D & mask
    value = (value ^ (value >> 12)) * 0x297A2D39 & mask
    return value ^ (value >> 15)
