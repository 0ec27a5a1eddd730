"""How likely a detector finds a word, by the word's height in the detector's input.

A detector misses small words because they are blurred, and huge ones because they exceed what its
receptive field sees as one. The curve is a product of two logistic steps of the log-height,

    R(h) = top / (1 + (h / small)^-rise) / (1 + (h / large)^fall),

fitted by maximum likelihood to words of validation images that were found or not.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_write_json

LEAST_PAIRS = 50
_EPS = 1e-6
# Weight of the default curve, in words: where validation has few words of a size, it decides.
_PRIOR_WORDS = 8.0


@dataclass(frozen=True)
class RecallCurve:
    """Probability that a word is found, by its height in pixels.

    The defaults describe a DB-style detector in broad terms: half of the words of 10 px, nine
    tenths of what it can find at 20 px, a slow fall beyond 200 px. Fit one for your detector.

    Attributes:
        top: probability at the best height, 0 to 1.
        small: height in pixels at which blur takes half of the words.
        rise: steepness there; higher is steeper.
        large: height in pixels at which half of the words are too large.
        fall: steepness there.
    """

    top: float = 0.9
    small: float = 10.0
    rise: float = 3.5
    large: float = 250.0
    fall: float = 3.0

    def __call__(self, height: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
        """Probability at heights in pixels, of any shape; 0 at height 0."""
        log = np.log(np.maximum(height, _EPS))
        return (
            self.top
            * _logistic(self.rise * (log - math.log(self.small)))
            * _logistic(self.fall * (math.log(self.large) - log))
        )

    def expected(
        self, height: Float[ndarray, ...], spread: Float[ndarray, ...]
    ) -> Float[ndarray, ...]:
        """Mean probability where the height is uncertain.

        Args:
            height: median height in pixels.
            spread: standard deviation of the log-height, of a shape that fits.
        """
        # Gauss-Hermite quadrature with three points: exact for polynomials up to degree five.
        step = math.sqrt(3) * spread
        outer = self(height * np.exp(step)) + self(height * np.exp(-step))
        return 2 / 3 * self(height) + outer / 6

    @classmethod
    def fit(cls, height_N: Float[ndarray, " N"], found_N: Bool[ndarray, " N"]) -> RecallCurve:
        """The most likely curve, with a little weight on the default one.

        Args:
            height_N: heights of annotated words in pixels of the detector's input.
            found_N: whether each was found.

        Raises:
            UserError: there are fewer than 50 words.
        """
        from scipy.optimize import minimize

        if len(height_N) < LEAST_PAIRS:
            raise UserError(
                f"a recall curve needs {LEAST_PAIRS} words at least, got {len(height_N)}: give it "
                "more validation images"
            )
        anchor_A = np.geomspace(4, 400, 16)
        height_M = np.concatenate([height_N, anchor_A])
        found_M = np.concatenate([found_N.astype(float), cls()(anchor_A)])
        weight_M = np.ones(len(height_M))
        weight_M[len(height_N) :] = _PRIOR_WORDS / len(anchor_A)

        def loss(theta: ndarray) -> float:
            p_M = np.clip(cls._of(theta)(height_M), _EPS, 1 - _EPS)
            likelihood_M = found_M * np.log(p_M) + (1 - found_M) * np.log1p(-p_M)
            return -float(weight_M @ likelihood_M)

        bounds = [(-4, 6), (1.0, 4.5), (0.0, 2.5), (4.0, 8.0), (0.0, 2.5)]
        best = minimize(loss, cls()._theta(), method="L-BFGS-B", bounds=bounds)
        return cls._of(best.x)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RecallCurve:
        """Reads what :meth:`save` wrote.

        Raises:
            UserError: the file is not there or is no recall curve.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"recall={path} is not a recall curve ({error}): give the recall_curve.json of a "
                "textscale_eval run, or leave it out"
            ) from None

    def save(self, path: str | Path) -> None:
        """Writes the curve as JSON."""
        atomic_write_json(path, asdict(self))

    def _theta(self) -> ndarray:
        logs = [math.log(v) for v in (self.small, self.rise, self.large, self.fall)]
        return np.array([math.log(self.top / (1 - self.top)), *logs])

    @classmethod
    def _of(cls, theta: ndarray) -> RecallCurve:
        small, rise, large, fall = np.exp(theta[1:]).tolist()
        return cls(float(_logistic(theta[:1])[0]), small, rise, large, fall)


def _logistic(x: ndarray) -> ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow
