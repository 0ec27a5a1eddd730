"""Spectral residual: what is unusual in an image's spectrum.

Shapes: B images, h and w of the small copy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior.area import area_resize
from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.prior.grey import grey
from adaptive.core.solvers.quadtree.geometry import Geometry

# Amplitudes below this are rounding, far under what one grey level of one pixel makes.
FLOOR = 1e-3


@PRIORS.register("spectral_residual")
class SpectralResidualPrior(MapPrior):
    """Saliency by spectral residual (Hou and Zhang, CVPR 2007).

    Args:
        size: shorter side of the small grey copy in pixels.
        sigma: of the Gaussian that smooths the map, in pixels of the copy.
    """

    def __init__(self, *, size: int = 64, sigma: float = 2.5, alpha: float | None = None):
        super().__init__(alpha=alpha)
        if size < 4 or not sigma > 0:
            raise UserError(
                f"spectral_residual(size={size}, sigma={sigma}) needs a size of at least 4 pixels "
                "and a sigma above 0"
            )
        self.size, self.sigma = size, sigma

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        scale = min(1.0, self.size / min(geometry.size))
        small = [max(1, round(side * scale)) for side in geometry.size]
        spectrum_Bhw = torch.fft.fft2(area_resize(grey(image_BCHW), *small))
        amplitude_Bhw = spectrum_Bhw.abs() + FLOOR
        log_Bhw = amplitude_Bhw.log()
        # A spectrum is periodic, so its mean over 3 x 3 goes around the edges.
        around = [log_Bhw.roll((row, col), (1, 2)) for row in (-1, 0, 1) for col in (-1, 0, 1)]
        usual_Bhw = torch.stack(around).mean(0)
        unusual_Bhw = spectrum_Bhw / amplitude_Bhw * (log_Bhw - usual_Bhw).exp()
        map_Bhw = torch.fft.ifft2(unusual_Bhw).abs().square()
        with torch.autocast(map_Bhw.device.type, enabled=False):
            return self._blur(small[0], map_Bhw) @ map_Bhw @ self._blur(small[1], map_Bhw).T

    def _blur(self, size: int, like: Tensor) -> Tensor:
        """A Gaussian along one side as a matrix, whose rows sum to one also at the border."""
        place = torch.arange(size, device=like.device, dtype=like.dtype)
        return torch.softmax(-((place - place[:, None]) ** 2) / (2 * self.sigma**2), 1)
