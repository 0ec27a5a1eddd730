"""Refuses images that priors cannot take.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.solvers.quadtree.geometry import Geometry

# How far pixels may lie outside of [0, 1]: sharper resizing and erasing with noise overshoot, a
# forgotten division by 255 or a normalisation that was not undone goes further.
OVERSHOOT = 1.0


def check_image(image_BCHW: Tensor, geometry: Geometry) -> None:
    """Sees to it that images are batches of RGB in [0, 1] of the geometry's size.

    Raises:
        UserError: any other images. Their values are read only outside of ``torch.compile``, where
            that is one pass over the pixels.
    """
    shape = tuple(image_BCHW.shape)
    if image_BCHW.ndim != 4:
        raise UserError(f"images of shape {shape}: priors take batches [B, 3, H, W]")
    if shape[1] == 1:
        raise UserError(
            f"images of shape {shape} have one channel: repeat it, as in "
            "image.expand(-1, 3, -1, -1)"
        )
    if shape[1] != 3:
        raise UserError(f"images of shape {shape} have {shape[1]} channels: priors take RGB")
    if shape[0] == 0:
        raise UserError("the batch holds no images: give at least one")
    if shape[2:] != geometry.size:
        raise UserError(
            f"images of {shape[2]} x {shape[3]} pixels do not fit a geometry of "
            f"{geometry.height} x {geometry.width}: make the geometry from the image's size"
        )
    if not image_BCHW.is_floating_point():
        raise UserError(
            f"images of {image_BCHW.dtype}: priors take floats in [0, 1]; divide bytes by 255"
        )
    if not torch.compiler.is_compiling():
        _check_values(image_BCHW)


def _check_values(image_BCHW: Tensor) -> None:
    low, high = torch.stack(image_BCHW.detach().aminmax()).tolist()
    if low != low:  # aminmax hands NaN on
        raise UserError("images hold NaN: mend the data, priors take pixels in [0, 1]")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise UserError(
            f"images hold values from {low:.3g} to {high:.3g}: priors take pixels in [0, 1]; "
            "divide bytes by 255, or undo the normalisation"
        )
