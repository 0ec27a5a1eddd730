"""Edge strength of grey levels.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.prior.grey import grey
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("sobel")
class SobelPrior(MapPrior):
    """Length of the gradient by Sobel's operator, in grey levels a pixel."""

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B H W"]:
        x_BHW = _framed(grey(image_BCHW))
        smooth_rows = (x_BHW[:, :-2] + 2 * x_BHW[:, 1:-1] + x_BHW[:, 2:]) / 4
        smooth_cols = (x_BHW[..., :-2] + 2 * x_BHW[..., 1:-1] + x_BHW[..., 2:]) / 4
        across_BHW = (smooth_rows[..., 2:] - smooth_rows[..., :-2]) / 2
        down_BHW = (smooth_cols[:, 2:] - smooth_cols[:, :-2]) / 2
        return (across_BHW.square() + down_BHW.square()).sqrt()  # ONNX has no hypot


@PRIORS.register("laplacian")
class LaplacianPrior(MapPrior):
    """Magnitude of the Laplacian: a pixel against its four neighbours, in grey levels."""

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B H W"]:
        x_BHW = _framed(grey(image_BCHW))
        centre_BHW = x_BHW[:, 1:-1, 1:-1]
        beside = (x_BHW[:, 1:-1, :-2] - centre_BHW) + (x_BHW[:, 1:-1, 2:] - centre_BHW)
        above = (x_BHW[:, :-2, 1:-1] - centre_BHW) + (x_BHW[:, 2:, 1:-1] - centre_BHW)
        return (beside + above).abs()


def _framed(grey_BHW: Tensor) -> Tensor:
    """With a frame of one pixel that repeats the border, which is no edge then."""
    return torch.nn.functional.pad(grey_BHW[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
