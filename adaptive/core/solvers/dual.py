"""The Lagrangian dual by a smoothed Newton method: a certified bound in milliseconds.

For multipliers ``v >= 0`` every feasible choice has a loss of at least

    L(v) = sum_g min_k (loss_gk + v . use_gk) - v . room,

a concave, piecewise linear function of the R multipliers whose maximum is the bound of the linear
relaxation (one option a group has the integrality property; Fisher 1981). The minimum over options
is replaced by a soft minimum of temperature t, which makes the function smooth, and a logarithmic
barrier keeps v positive; Newton's method climbs while t falls. Each step costs a few passes over
[G, K], and each visited point gives the exact L(v), which needs no tolerance to be true.

With a single row that binds, L is a concave chain of lines over a number, whose top is found
exactly: two lines that support it on either side meet above it, and L there is a third line that
replaces one of them, or the top (Kelley's cutting planes in one dimension). That takes some ten
passes, a tenth of the time that Newton's method takes.

Shapes: G groups, K options, R rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from adaptive.core.solvers.program import Program

_COOLING = 0.25
_TRAIL = 8


@dataclass(frozen=True)
class Dual:
    """Where the ascent ended.

    Attributes:
        multipliers_R: the best multipliers, exactly 0 on rows that do not bind.
        bound: L of them, a lower bound on the scaled loss.
        reduced_GK: reduced cost of each option, >= 0 and 0 on the best of each group: a choice that
            takes option k in group g has a loss of at least ``bound + reduced[g, k]``.
        trail: distinct minimising choices along the way, latest first.
        infeasible: true if the bound exceeds any choice's loss, which proves that none is feasible.
    """

    multipliers_R: Float[np.ndarray, " R"]
    bound: float
    reduced_GK: Float[np.ndarray, "G K"]
    trail: tuple[Int[np.ndarray, " G"], ...]
    infeasible: bool


def ascend(
    program: Program, start_R: Float[np.ndarray, " R"] | None = None, deadline: float = np.inf
) -> Dual:
    """Maximises the Lagrangian bound of ``program``.

    Args:
        program: the scaled problem.
        start_R: multipliers to begin with, from a similar problem.
        deadline: value of ``time.perf_counter()`` at which the best so far is returned.
    """
    return _Ascent(program, start_R).run(deadline)


class _Ascent:
    def __init__(self, program: Program, start_R: Float[np.ndarray, " R"] | None):
        self.program = program
        G, K = program.shape
        # Rows that never bind are left out: their multiplier is 0 at the optimum.
        self.rows = np.flatnonzero(program.room_R < 1)
        self.use_RGK = program.use_RGK[self.rows]
        self.flat_RN = self.use_RGK.reshape(len(self.rows), G * K)
        self.room_R = program.room_R[self.rows]
        self.shape = (G, K)
        self.warm = start_R is not None
        self.v_R = np.ones(len(self.rows)) if start_R is None else start_R[self.rows] + 1e-9
        self.best_bound, self.best_v_R = -np.inf, np.zeros(len(self.rows))
        self.trail: dict[bytes, Int[np.ndarray, " G"]] = {}
        # No choice loses more than this.
        self.ceiling = float(
            np.where(np.isfinite(program.loss_GK), program.loss_GK, 0).max(1).sum()
        )

    def values(self, v_R: Float[np.ndarray, " R"]) -> Float[np.ndarray, "G K"]:
        return self.program.loss_GK + (v_R @ self.flat_RN).reshape(self.shape)

    def certify(self, v_R: Float[np.ndarray, " R"]) -> float:
        """L(v); remembers the best and the minimising choice."""
        values_GK = self.values(v_R)
        choice_G = values_GK.argmin(1)
        bound = float(self.program.pick(values_GK, choice_G).sum() - v_R @ self.room_R)
        self.trail.pop(choice_G.tobytes(), None)
        self.trail[choice_G.tobytes()] = choice_G
        if bound > self.best_bound:
            self.best_bound, self.best_v_R = bound, v_R.copy()
        return bound

    def smooth(self, v_R: Float[np.ndarray, " R"], t: float) -> tuple[float, np.ndarray]:
        """The smoothed dual with its barrier, and the soft choice [G, K]."""
        values_GK = self.values(v_R)
        low_G1 = values_GK.min(1, keepdims=True)
        p_GK = np.exp((low_G1 - values_GK) / t)
        sum_G1 = p_GK.sum(1, keepdims=True)
        value = low_G1.sum() - t * np.log(sum_G1).sum() - v_R @ self.room_R + t * np.log(v_R).sum()
        return float(value), p_GK / sum_G1

    def climb(self, t: float) -> None:
        """Newton steps at one temperature."""
        value, p_GK = self.smooth(self.v_R, t)
        for _ in range(8):
            weighted_RGK = self.use_RGK * p_GK
            mean_RG = weighted_RGK.sum(-1)
            slope_R = mean_RG.sum(-1) - self.room_R + t / self.v_R
            curve_RR = weighted_RGK.reshape(self.flat_RN.shape) @ self.flat_RN.T
            curve_RR = (curve_RR - mean_RG @ mean_RG.T) / t + np.diag(t / self.v_R**2)
            curve_RR[np.diag_indices_from(curve_RR)] *= 1 + 1e-10
            step_R = np.linalg.solve(curve_RR, slope_R)
            gain = float(slope_R @ step_R)
            if not gain > 0.1 * t:
                return
            shrinking = step_R < 0
            size = min(1.0, 0.9 * float((-self.v_R / step_R)[shrinking].min(initial=np.inf)))
            for _ in range(12):
                new_R = self.v_R + size * step_R
                new_value, new_p_GK = self.smooth(new_R, t)
                if new_value >= value + 1e-3 * size * gain:
                    break
                size *= 0.4
            else:
                return
            self.v_R, value, p_GK = new_R, new_value, new_p_GK

    def line(self, v: float) -> tuple[float, float]:
        """L(v) of the only row, and the slope there of the line that supports it."""
        bound = self.certify(np.array([v]))
        choice_G = next(reversed(self.trail.values()))
        return bound, float(self.program.pick(self.use_RGK[0], choice_G).sum() - self.room_R[0])

    def bracket(self, deadline: float) -> None:
        """The top of L where there is one row."""
        low, (low_value, low_slope) = 0.0, self.line(0.0)
        high, (high_value, high_slope) = float(self.v_R[0]), self.line(float(self.v_R[0]))
        while high_slope > 0 and self.best_bound <= self.ceiling:  # the top lies further out
            low, low_value, low_slope = high, high_value, high_slope
            high *= 4
            high_value, high_slope = self.line(high)
        while low_slope > 0 > high_slope and time.perf_counter() < deadline:
            meet = (high_value - low_value + low_slope * low - high_slope * high) / (
                low_slope - high_slope
            )
            limit = low_value + low_slope * (meet - low)
            value, slope = self.line(meet)
            if value >= limit - 1e-15 * max(abs(limit), 1e-3) or not low < meet < high:
                return
            if slope > 0:
                low, low_value, low_slope = meet, value, slope
            else:
                high, high_value, high_slope = meet, value, slope

    def run(self, deadline: float) -> Dual:
        self.certify(np.zeros(len(self.rows)))
        if len(self.rows) == 1:
            self.bracket(deadline)
        elif len(self.rows):
            G = self.shape[0]
            t, coldest = (1e-3 if self.warm else 0.5) / G, 1e-9 / G
            self.certify(self.v_R)
            while (
                t > coldest and self.best_bound <= self.ceiling and time.perf_counter() < deadline
            ):
                with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                    try:
                        self.climb(t)
                    except np.linalg.LinAlgError:
                        break
                self.certify(self.v_R)
                t *= _COOLING
            trail = dict(self.trail)
            self.drop_idle()
            self.trail = trail  # what idle multipliers alone would choose is no way to begin
        multipliers_R = np.zeros(len(self.program.room_R))
        multipliers_R[self.rows] = self.best_v_R
        values_GK = self.values(self.best_v_R)
        return Dual(
            multipliers_R=multipliers_R,
            bound=self.best_bound,
            reduced_GK=values_GK - values_GK.min(1, keepdims=True),
            trail=tuple(reversed(self.trail.values()))[:_TRAIL],
            infeasible=self.best_bound > self.ceiling * (1 + 1e-9) + 1e-9,
        )

    def drop_idle(self) -> None:
        """Sets multipliers to 0 that the barrier alone keeps above it."""
        for r in np.flatnonzero(self.best_v_R):
            v_R = self.best_v_R.copy()
            v_R[r] = 0.0
            least = self.best_bound - 1e-12 * max(abs(self.best_bound), 1e-3)
            bound = self.certify(v_R)
            if bound >= least:
                self.best_bound, self.best_v_R = bound, v_R
