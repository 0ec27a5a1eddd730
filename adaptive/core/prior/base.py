"""What all priors have in common.

Shapes: B images, C channels, H and W pixels, S nodes that may split, R rows and K columns of one
level of nodes, h and w of a map.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.prior.area import join_levels, map_levels, node_areas
from adaptive.core.prior.check import check_image
from adaptive.core.registry import Registry
from adaptive.core.solvers.quadtree.geometry import Geometry


class Prior(nn.Module, ABC):
    """Scores the nodes of quadtrees by what splitting them is worth.

    Attributes:
        alpha: exponent of the area in the score; a class attribute holds the default.
    """

    alpha: float = 1.0

    def __init__(self, *, alpha: float | None = None):
        super().__init__()
        if alpha is not None:
            if not math.isfinite(alpha):
                raise UserError(f"alpha={alpha} must be a finite number, such as 1 or 0.5")
            self.alpha = float(alpha)

    @classmethod
    def files(cls, **settings: Any) -> list[Path]:
        """Files that a prior with these settings reads, whose content decides its scores.

        By default those that a setting names, and of a directory all that are in it.

        Raises:
            UserError: what a setting names is not there, if the prior looks for it.
        """
        found = []
        for value in settings.values():
            if isinstance(value, str | Path) and str(value):
                path = Path(value)
                inside = sorted(path.rglob("*")) if path.is_dir() else [path]
                found += [file for file in inside if file.is_file()]
        return found

    @abstractmethod
    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        """Mean worth of a unit of area in each node, finite and not negative.

        Args:
            image_BCHW: RGB in [0, 1], float32.
            geometry: of the images, with at least two levels.

        Returns:
            One tensor [B, R, K] for each level that may split, coarse to fine.
        """

    def shared_density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        """The same in a unit that all images of the batch have in common."""
        return self.density(image_BCHW, geometry)

    def forward(self, image_BCHW: Tensor, geometry: Geometry) -> Float[Tensor, "B S"]:
        """Scores of the nodes that may split, in the geometry's order.

        Args:
            image_BCHW: RGB in [0, 1], any floating dtype.
            geometry: of the images.

        Returns:
            ``area ** alpha * density``, area in units of the finest patch; float32.

        Raises:
            UserError: images that are no batches of RGB in [0, 1] of the geometry's size. Values
                are not looked at while compiling.
        """
        return self._scores(self.density, image_BCHW, geometry)

    def shared(self, image_BCHW: Tensor, geometry: Geometry) -> Float[Tensor, "B S"]:
        """Scores that compare between the images of a batch, for a budget that they share.

        Arguments, result and errors are those of a call.
        """
        return self._scores(self.shared_density, image_BCHW, geometry)

    def _scores(
        self,
        density: Callable[[Tensor, Geometry], list[Tensor]],
        image_BCHW: Tensor,
        geometry: Geometry,
    ) -> Tensor:
        check_image(image_BCHW, geometry)
        if not geometry.splittable:
            return torch.zeros(image_BCHW.shape[0], 0, device=image_BCHW.device)
        with torch.no_grad():  # scores are sorted, so no gradient can come back through them
            density_BS = join_levels(density(image_BCHW.float(), geometry))
            return density_BS * node_areas(geometry, density_BS) ** self.alpha


class MapPrior(Prior):
    """A prior that is a map of saliency: a node's density is the map's mean over the node."""

    @abstractmethod
    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        """Worth of each place in an image, at any resolution; finite and not negative."""

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        return map_levels(self.saliency(image_BCHW, geometry), geometry)


# Names of priors in expressions; the values' keyword arguments are the settings.
PRIORS: Registry[type[Prior]] = Registry("prior")
