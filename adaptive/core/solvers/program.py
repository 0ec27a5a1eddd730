"""The normal form that every solver works on, and what a solver is.

A problem with a budget becomes: minimise the summed loss, one option a group, such that each of R
rows of non-negative "uses" stays within its room. Lower limits are rows with the sign turned.
Diversity is a row as well: "differ from an earlier answer in at least d groups" says that at most
G - d groups take the option they took there, a row of zeros and ones. What holds for rows
(domination, Lagrangian bounds, repair) therefore holds for every kind of limit.

Each row is shifted by its smallest use in each group and divided by its range, so bytes (1e11) and
seconds (1e-5) meet as numbers between 0 and 1; losses likewise.

Shapes: G groups, K options left in the largest group, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from adaptive.core.registry import Registry

# Sums of floats are compared with a slack of this share of their terms' size: "0.1 + 0.2 <= 0.3".
SLACK = 1e-12
# Pairs of options compared at a time: small groups together, large ones in bounded memory.
_PAIRS = 1_000_000
# A relative gap below this is rounding, and counts as none.
ZERO_GAP = 1e-9


@dataclass(frozen=True)
class Row:
    """One limit as ``sum(use) <= limit``, in the resource's unit (sign turned for lower limits).

    Attributes:
        use_GK: use of each option, [G, K].
        limit: what the uses may sum to.
        key: rows with equal keys have equal uses, whatever their limits.
        source: what the row was made from, for messages.
    """

    use_GK: Float[np.ndarray, "G K"]
    limit: float
    key: Any
    source: Any = None


@dataclass(frozen=True)
class Program:
    """Scaled problem; see the module's docstring. Build it with :meth:`build`.

    Attributes:
        loss_GK: scaled losses from 0 up, +inf on padding.
        use_RGK: scaled uses from 0 up, 0 on padding.
        room_R: what the scaled uses of a row may sum to; 1 or more means that the row never binds.
        index_GK: the option in the original problem.
        loss_shift, loss_scale: loss = shift + scale * scaled loss (sums).
        use_scale_R: use = scale * scaled use, up to a shift.
        raw_RGK, raw_limit_R: uses and limits before scaling, for the final word on feasibility.
    """

    loss_GK: Float[np.ndarray, "G K"]
    use_RGK: Float[np.ndarray, "R G K"]
    room_R: Float[np.ndarray, " R"]
    index_GK: Int[np.ndarray, "G K"]
    loss_shift: float
    loss_scale: float
    use_scale_R: Float[np.ndarray, " R"]
    use_shift_R: Float[np.ndarray, " R"]
    raw_RGK: Float[np.ndarray, "R G K"]
    raw_limit_R: Float[np.ndarray, " R"]
    magnitude_R: Float[np.ndarray, " R"]
    loss_magnitude: float
    rows: tuple[Row, ...] = field(repr=False, default=())

    @classmethod
    def build(
        cls, loss_GK: Float[np.ndarray, "G K"], rows: Sequence[Row], prune: bool = True
    ) -> Program:
        """Normal form of ``min loss`` within ``rows``; options with infinite loss are left out.

        Args:
            loss_GK: losses, +inf for unavailable options.
            rows: the limits.
            prune: leave out dominated options as well.
        """
        G = loss_GK.shape[0]
        use_RGK = np.array([row.use_GK for row in rows], dtype=np.float64).reshape(
            -1, *loss_GK.shape
        )
        keep_GK = undominated(loss_GK, use_RGK) if prune else np.isfinite(loss_GK)
        width = int(keep_GK.sum(1).max())
        # A stable sort of "not kept" moves the kept options to the front in their old order.
        index_GK = np.argsort(~keep_GK, axis=1, kind="stable")[:, :width]
        valid_GK = np.take_along_axis(keep_GK, index_GK, 1)
        raw_RGK = np.where(valid_GK, np.take_along_axis(use_RGK, index_GK[None], 2), np.nan)
        raw_loss_GK = np.where(valid_GK, np.take_along_axis(loss_GK, index_GK, 1), np.nan)

        low_G, range_loss = _shift_and_range(raw_loss_GK)
        low_RG, range_R = _shift_and_range(raw_RGK)
        program = cls(
            loss_GK=np.where(valid_GK, (raw_loss_GK - low_G[:, None]) / range_loss, np.inf),
            use_RGK=np.where(
                valid_GK, (raw_RGK - low_RG[:, :, None]) / range_R[:, None, None], 0.0
            ),
            room_R=np.zeros(len(rows)),
            index_GK=index_GK,
            loss_shift=float(low_G.sum()),
            loss_scale=float(range_loss),
            use_scale_R=range_R,
            use_shift_R=low_RG.sum(-1),
            raw_RGK=np.where(valid_GK, raw_RGK, np.inf),
            raw_limit_R=np.zeros(len(rows)),
            magnitude_R=np.nanmax(np.abs(raw_RGK), -1).sum(-1) if G else np.zeros(len(rows)),
            loss_magnitude=float(np.nanmax(np.abs(raw_loss_GK), -1).sum()),
        )
        return program.limited(rows)

    def limited(self, rows: Sequence[Row]) -> Program:
        """The same program with other limits; ``rows`` have the same keys in the same order."""
        limit_R = np.array([row.limit for row in rows], dtype=np.float64)
        slack_R = SLACK * (np.abs(limit_R) + self.magnitude_R)
        return replace(
            self,
            room_R=(limit_R + slack_R - self.use_shift_R) / self.use_scale_R,
            # Twice the slack: what fits the scaled room also fits here, whatever was rounded.
            raw_limit_R=limit_R + 2 * slack_R,
            rows=tuple(rows),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(G, K)."""
        return self.loss_GK.shape[0], self.loss_GK.shape[1]

    def pick(
        self, values_GK: Num[np.ndarray, "*any G K"], choice_G: Int[np.ndarray, " G"]
    ) -> Num[np.ndarray, "*any G"]:
        """Entries of the chosen options."""
        return values_GK[..., np.arange(len(choice_G)), choice_G]

    def loss(self, choice_G: Int[np.ndarray, " G"]) -> float:
        """Scaled loss of a choice."""
        return float(self.pick(self.loss_GK, choice_G).sum())

    def feasible(self, choice_G: Int[np.ndarray, " G"]) -> bool:
        """Whether a choice keeps every limit, judged on unscaled uses."""
        return bool((self.pick(self.raw_RGK, choice_G).sum(-1) <= self.raw_limit_R).all())

    def original(self, choice_G: Int[np.ndarray, " G"]) -> Int[np.ndarray, " G"]:
        """Option indices of the problem from those of the program."""
        return self.pick(self.index_GK, choice_G)

    def translate(self, original_G: Int[np.ndarray, " G"]) -> Int[np.ndarray, " G"] | None:
        """Inverse of :meth:`original`; None if an option was pruned."""
        match_GK = (self.index_GK == original_G[:, None]) & np.isfinite(self.loss_GK)
        return match_GK.argmax(1) if match_GK.any(1).all() else None

    def unscale(self, loss: float) -> float:
        """The problem's loss from a scaled one."""
        return self.loss_shift + self.loss_scale * loss

    def gap(self, loss: float, bound: float) -> float:
        """Relative gap (see :class:`~adaptive.core.choice.Allocation`) of scaled values."""
        return self.loss_scale * max(loss - bound, 0.0) / self._denominator(loss)

    def closing_distance(self, loss: float, gap: float) -> float:
        """How far below a scaled loss the bound may lie for the relative ``gap``, less rounding."""
        return 0.999 * gap * self._denominator(loss) / self.loss_scale

    def _denominator(self, loss: float) -> float:
        return max(abs(self.unscale(loss)), 1e-9 * self.loss_magnitude, np.finfo(float).tiny)


@dataclass(frozen=True)
class Start:
    """What an earlier, similar search leaves to the next.

    Attributes:
        multipliers_R: dual multipliers in scaled terms.
        choices: choices in the problem's option indices, worth trying.
    """

    multipliers_R: Float[np.ndarray, " R"] | None = None
    choices: tuple[Int[np.ndarray, " G"], ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a solver returns, in the program's scaled terms.

    Attributes:
        choice_G: the choice in the program's indices, feasible.
        bound: lower bound on the scaled loss of every feasible choice.
        multipliers_R: dual multipliers, the scaled shadow prices.
        exhausted: true if the solver ran out of time.
    """

    choice_G: Int[np.ndarray, " G"]
    bound: float
    multipliers_R: Float[np.ndarray, " R"]
    exhausted: bool = False


# A solver is called as solver(program, gap=..., deadline=..., start=..., **its_own_options):
#   program    the scaled problem; every row can be met by itself
#   gap        relative gap at which the search may stop
#   deadline   value of time.perf_counter() at which it must stop
#   start      leftovers of an earlier search, to be tried first
# and returns the best choice found with its bound, or None if it found none: the caller then asks
# for a proof that there is none.
Solver = Callable[..., Answer | None]

SOLVERS: Registry[Solver] = Registry("solver")


def undominated(
    loss_GK: Float[np.ndarray, "G K"], use_RGK: Float[np.ndarray, "R G K"]
) -> Bool[np.ndarray, "G K"]:
    """Options that no other option of their group replaces at no more loss and no more use.

    Lower limits and diversity are rows too, so replacing a dominated option never breaks them. Of
    equal options the first is kept.
    """
    keep_GK = np.isfinite(loss_GK)
    values_VGK = np.concatenate([loss_GK[None], use_RGK])
    G, K = loss_GK.shape
    step = max(1, _PAIRS // K**2)  # groups looked at together
    for g in range(0, G, step):
        part_VgK = values_VGK[:, g : g + step]
        no_worse_gKK = (part_VgK[:, :, :, None] <= part_VgK[:, :, None]).all(0)  # i replaces j
        no_worse_gKK &= keep_GK[g : g + step, :, None]
        first_KK = np.tri(K, k=-1, dtype=bool).T  # i before j
        beaten_gKK = no_worse_gKK & (~no_worse_gKK.swapaxes(1, 2) | first_KK)
        keep_GK[g : g + step] &= ~beaten_gKK.any(1)
    return keep_GK


def _shift_and_range(values: Float[np.ndarray, "*any G K"]) -> tuple[np.ndarray, Any]:
    """Smallest value per group, and the sum over groups of largest minus smallest (1 if zero)."""
    low = np.nanmin(values, -1)
    total = (np.nanmax(values, -1) - low).sum(-1)
    return low, np.where(total > 0, total, 1.0)
