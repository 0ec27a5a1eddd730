"""Sums, products and powers of priors.

Shapes: B images, S nodes that may split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.prior.area import join_levels, node_areas, split_levels
from adaptive.core.prior.base import Prior
from adaptive.core.solvers.quadtree.geometry import Geometry


@dataclass(frozen=True)
class Part:
    """One of the priors that a formula is about, by number."""

    number: int


@dataclass(frozen=True)
class Operation:
    """``+``, ``*`` or ``**`` of two formulas; an exponent is a number."""

    symbol: str
    left: Formula
    right: Formula


Formula = float | Part | Operation


class CombinedPrior(Prior):
    """A formula of several priors' densities.

    Densities have units of their own, so each is divided by its mean over the image first, and one
    that is zero all over, as the gain of a blank image is, counts as the same everywhere: then it
    leaves the choice to the others. The mean gives every level the same weight; for maps of
    saliency it is the map's mean. Where images share a budget it is the mean over the batch.

    Args:
        formula: of numbers and parts.
        parts: the priors that it numbers. Their own alphas only give the default.
        alpha: exponent of the area; None: that of the parts if they agree, else 1.
    """

    def __init__(self, formula: Formula, parts: Sequence[Prior], *, alpha: float | None = None):
        if alpha is None:
            alphas = {part.alpha for part in parts}
            alpha = alphas.pop() if len(alphas) == 1 else 1.0
        super().__init__(alpha=alpha)
        self.formula = formula
        # A module list does not say that its items are priors.
        self.parts = cast(Sequence[Prior], nn.ModuleList(parts))

    def density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        parts = (join_levels(part.density(image_BCHW, geometry)) for part in self.parts)
        return self._value([normalised(part_BS, geometry) for part_BS in parts], geometry)

    def shared_density(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> list[Float[Tensor, "B _ _"]]:
        parts = (join_levels(part.shared_density(image_BCHW, geometry)) for part in self.parts)
        return self._value([normalised(p_BS, geometry, together=True) for p_BS in parts], geometry)

    def _value(self, parts: Sequence[Tensor], geometry: Geometry) -> list[Tensor]:
        # In one row each, so that a compiler makes one kernel of the formula, not one a level.
        value_BS = _evaluate(self.formula, parts)
        assert isinstance(value_BS, Tensor)  # a formula has at least one part
        return split_levels(value_BS, geometry)


def normalised(
    density_BS: Float[Tensor, "B S"], geometry: Geometry, together: bool = False
) -> Float[Tensor, "B S"]:
    """Densities over their mean in each image, or in all; ones where there is nothing."""
    # Every level covers the image once, so a mean by area weighs all levels alike.
    area_S = node_areas(geometry, density_BS)
    mean_B1 = (density_BS * area_S).sum(1, keepdim=True) / area_S.sum()
    if together:
        mean_B1 = mean_B1.mean(0, keepdim=True).expand_as(mean_B1)
    some_B1 = mean_B1 > torch.finfo(mean_B1.dtype).tiny
    return torch.where(some_B1, density_BS / torch.where(some_B1, mean_B1, 1), 1)


def _evaluate(formula: Formula, parts: Sequence[Tensor]) -> Tensor | float:
    if isinstance(formula, Part):
        return parts[formula.number]
    if not isinstance(formula, Operation):
        return formula
    left, right = _evaluate(formula.left, parts), _evaluate(formula.right, parts)
    if formula.symbol == "+":
        return left + right
    if formula.symbol == "*":
        return left * right
    return left**right
