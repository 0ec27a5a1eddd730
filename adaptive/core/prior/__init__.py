"""Priors: where in an image compute is worth spending, before the model has seen it.

A prior is a module called as ``prior(image_BCHW, geometry) -> score_BS``: RGB images in [0, 1] in,
one float32 score a quadtree node that may split out, higher where splitting is worth more. A score
is ``area ** alpha * density``, area in units of the finest patch and density the mean worth of a
unit of area. So alpha = 1 makes it the worth of the whole node, right for what adds up (squared
error, saliency mass), and alpha = 0 compares densities regardless of area.

:func:`build_prior` makes one from text, such as ``"gain"``, ``"entropy(bins=64)"`` or
``"gain**0.5 * centre"``. A prior of one's own takes a map of any resolution, or densities of all
levels (:class:`Prior`), and joins in once it is registered:

>>> @PRIORS.register("red")
... class Red(MapPrior):
...     '''How red a region is.'''
...
...     def saliency(self, image_BCHW, geometry):
...         return image_BCHW[:, 0]
>>> prior = build_prior("0.3*red + 0.7*gain")

Its settings are the keyword arguments of its ``__init__``, which hands ``alpha`` to that of
:class:`Prior`. Densities must be finite and not negative, and be computed without control flow that
depends on them, so that ``torch.compile(fullgraph=True)`` takes the prior.
"""

from adaptive.core.prior.area import area_resize
from adaptive.core.prior.base import PRIORS, MapPrior, Prior
from adaptive.core.prior.centre import CentrePrior
from adaptive.core.prior.combine import CombinedPrior
from adaptive.core.prior.distill import distill_loss, distill_prior
from adaptive.core.prior.early import EarlyPrior
from adaptive.core.prior.edges import LaplacianPrior, SobelPrior
from adaptive.core.prior.entropy import EntropyPrior
from adaptive.core.prior.expression import build_prior, prior_identity
from adaptive.core.prior.feature import FeaturePrior
from adaptive.core.prior.learned import LearnedPrior
from adaptive.core.prior.noise import RandomPrior
from adaptive.core.prior.oracle import attention_rollout, grad_cam
from adaptive.core.prior.pixels import BlurPrior, GainPrior
from adaptive.core.prior.precomputed import PrecomputedPrior
from adaptive.core.prior.spectral import SpectralResidualPrior

__all__ = [
    "PRIORS",
    "BlurPrior",
    "CentrePrior",
    "CombinedPrior",
    "EarlyPrior",
    "EntropyPrior",
    "FeaturePrior",
    "GainPrior",
    "LaplacianPrior",
    "LearnedPrior",
    "MapPrior",
    "PrecomputedPrior",
    "Prior",
    "RandomPrior",
    "SobelPrior",
    "SpectralResidualPrior",
    "area_resize",
    "attention_rollout",
    "build_prior",
    "distill_loss",
    "distill_prior",
    "grad_cam",
    "prior_identity",
]
