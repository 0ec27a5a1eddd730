"""Maps that were made elsewhere: an oracle's, a person's, a detector's.

Shapes: B images, h and w of the maps.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.solvers.quadtree.geometry import Geometry


@PRIORS.register("precomputed")
class PrecomputedPrior(MapPrior):
    """Saliency maps given from outside, one for each image of the next batch.

    ``prior.map_BHW = grad_cam(model, image_BCHW)`` sets those of a batch.

    Args:
        map_BHW: [B, h, w] at any resolution, or [1, h, w] for all images; not negative.
    """

    def __init__(self, *, map_BHW: Tensor | None = None, alpha: float | None = None):
        super().__init__(alpha=alpha)
        # A batch's data, no part of the module's state.
        self.register_buffer("map_BHW", map_BHW, persistent=False)

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        given, images = self.map_BHW, image_BCHW.shape[0]
        if not isinstance(given, Tensor):
            raise UserError("precomputed has no maps: set prior.map_BHW to one for each image")
        if given.ndim != 3 or len(given) not in (1, images):
            raise UserError(
                f"precomputed: map_BHW of shape {tuple(given.shape)} does not fit {images} images: "
                f"give ({images}, h, w), or (1, h, w) for all"
            )
        return given.to(image_BCHW).expand(images, -1, -1)
