"""Sums, products and powers of priors.

Shapes: B images, R rows and K columns of a level of nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    saliency it is the map's mean.

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
        parts = [normalised(part.density(image_BCHW, geometry)) for part in self.parts]
        levels = zip(*parts, strict=True)
        return [torch.as_tensor(_evaluate(self.formula, level)) for level in levels]


def normalised(levels: list[Float[Tensor, "B _ _"]]) -> list[Float[Tensor, "B _ _"]]:
    """Densities over their mean in each image; ones where there is nothing."""
    means = torch.stack([level_BRK.float().mean((1, 2)) for level_BRK in levels])
    mean_B11 = means.mean(0)[:, None, None]
    some_B11 = mean_B11 > torch.finfo(torch.float32).tiny
    return [
        torch.where(some_B11, level_BRK / torch.where(some_B11, mean_B11, 1), 1)
        for level_BRK in levels
    ]


def _evaluate(formula: Formula, level: Sequence[Tensor]) -> Tensor | float:
    """A formula's value on one level of nodes."""
    if isinstance(formula, Part):
        return level[formula.number]
    if not isinstance(formula, Operation):
        return formula
    left, right = _evaluate(formula.left, level), _evaluate(formula.right, level)
    if formula.symbol == "+":
        return left + right
    if formula.symbol == "*":
        return left * right
    return left**right
