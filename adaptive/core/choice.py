"""The one problem of the library and its answer.

Shapes: G groups, K options of the largest group. A group competes for compute (a layer, an image
region); exactly one of its options is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from adaptive.core.budget import Cost
from adaptive.core.errors import UserError
from adaptive.core.resource import RESOURCES
from adaptive.core.workload import Workload


class ChoiceProblem:
    """Multiple-choice knapsack: one option for each group, least summed loss within limits.

    Args:
        loss: loss of each option, [G, K] or a list of G lists of different lengths. An infinite or
            NaN loss marks an option that is not available.
        cost: resource name to costs of the same shape, in the resource's unit; finite wherever the
            loss is.
        fixed: cost that is spent whatever is chosen (embeddings, activations), by resource.
        groups: names of the groups, [G]; "0", "1", ... if left out.
        options: labels of the options, [K] for all groups or G lists.
        reference: option of each group that relative budgets refer to, [G]; the first if left out.
        workload: what the costs were taken for; needed for throughput limits in tokens/s.

    Attributes:
        loss: [G, K] losses, +inf where an option is not available (or pads a shorter group).
        available: [G, K], false where an option is not available (or pads a shorter group).
        cost: resource name to [G, K] costs, NaN where not finite or padded.

    Raises:
        UserError: for shapes that do not agree, unknown resources, a cost that is not finite or a
            group without any available option.
    """

    def __init__(
        self,
        loss: Any,
        cost: Mapping[str, Any],
        *,
        fixed: Mapping[str, float] | None = None,
        groups: Iterable[str] | None = None,
        options: Sequence[Any] | None = None,
        reference: Any = None,
        workload: Workload | None = None,
    ):
        self.loss, lengths = _rectangle(loss, "loss", math.inf)
        self.loss[np.isnan(self.loss)] = math.inf
        if np.isneginf(self.loss).any():
            raise UserError("loss holds -inf: a loss is finite, or +inf for an unavailable option")
        G, K = self.loss.shape
        self.available: Bool[np.ndarray, "G K"] = np.isfinite(self.loss)
        self.groups = tuple(map(str, groups)) if groups is not None else tuple(map(str, range(G)))
        if len(self.groups) != G:
            raise UserError(f"groups has {len(self.groups)} names for {G} groups of losses")
        for g in np.flatnonzero(~self.available.any(1)):
            raise UserError(f"group {self.groups[g]!r} has no available option: all losses are inf")
        self.options = _labels(options, lengths, K)
        self.cost: dict[str, Float[np.ndarray, "G K"]] = {}
        for name, entries in cost.items():
            self.cost[name] = self._check_cost(name, entries, lengths)
        self.fixed = {name: float(value) for name, value in (fixed or {}).items()}
        for name, value in self.fixed.items():
            if name not in self.cost:
                raise UserError(f"fixed.{name} has no costs beside it, give cost[{name!r}] too")
            if not math.isfinite(value):
                raise UserError(f"fixed.{name}={value} is not finite")
        self.reference: Int[np.ndarray, " G"] = (
            np.zeros(G, dtype=np.int64) if reference is None else self.check_choice(reference)
        )
        self.workload = workload

    def _check_cost(self, name: str, entries: Any, lengths: list[int]) -> Float[np.ndarray, "G K"]:
        if name not in RESOURCES:
            raise UserError(
                f"cost: {RESOURCES.unknown(name)}; a new one is added by RESOURCES.register"
            )
        if RESOURCES[name].kind == "rate":
            raise UserError(f"cost: {name} does not add up over groups, give latency instead")
        cost_GK, found = _rectangle(entries, f"cost[{name!r}]", math.nan)
        if cost_GK.shape != self.loss.shape or found != lengths:
            raise UserError(f"cost[{name!r}] and loss differ in shape")
        bad = np.argwhere(self.available & ~np.isfinite(cost_GK))
        if len(bad):
            g, k = bad[0]
            raise UserError(
                f"cost[{name!r}] of group {self.groups[g]!r}, option {self.options[g][k]!r} is "
                f"{cost_GK[g, k]}: make it finite, or its loss inf if the option is not available"
            )
        return np.where(np.isfinite(cost_GK), cost_GK, math.nan)

    @property
    def num_groups(self) -> int:
        """G."""
        return self.loss.shape[0]

    @property
    def num_options(self) -> int:
        """K, the options of the largest group."""
        return self.loss.shape[1]

    def check_choice(self, choice: Any) -> Int[np.ndarray, " G"]:
        """``choice`` (an array of option indices or an :class:`Allocation`) as an int array [G]."""
        raw = np.asarray(choice.choice if isinstance(choice, Allocation) else choice)
        lengths = np.array([len(labels) for labels in self.options])
        if raw.shape != lengths.shape:
            raise UserError(
                f"a choice needs {self.num_groups} option indices, got shape {raw.shape}"
            )
        choice_G = raw.astype(np.int64)
        if (choice_G != raw).any() or (choice_G < 0).any() or (choice_G >= lengths).any():
            raise UserError("a choice holds an index that is not an option of its group")
        return choice_G

    def total(self, choice: Any) -> Cost:
        """Cost of a choice by resource, ``fixed`` included; correctly rounded sums."""
        choice_G = self.check_choice(choice)
        rows = np.arange(self.num_groups)
        return Cost(
            {
                name: math.fsum([*cost_GK[rows, choice_G].tolist(), self.fixed.get(name, 0.0)])
                for name, cost_GK in self.cost.items()
            }
        )

    def total_loss(self, choice: Any) -> float:
        """Summed loss of a choice; inf if it takes an unavailable option."""
        return math.fsum(self.loss[np.arange(self.num_groups), self.check_choice(choice)])

    @property
    def reference_cost(self) -> Cost:
        """Cost of the reference choice, what "60%" is a part of."""
        return self.total(self.reference)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON dictionary (null for inf and NaN); :meth:`from_json` restores it exactly."""
        shared = len(set(self.options)) == 1
        return {
            "loss": _nullable(self.loss, self.options),
            "cost": {name: _nullable(c_GK, self.options) for name, c_GK in self.cost.items()},
            "fixed": dict(self.fixed),
            "groups": list(self.groups),
            "options": list(self.options[0]) if shared else [list(o) for o in self.options],
            "reference": self.reference.tolist(),
            "workload": self.workload.to_json() if self.workload else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ChoiceProblem:
        """Inverse of :meth:`to_json`."""
        workload = data.get("workload")
        return cls(
            _from_nullable(data["loss"]),
            {name: _from_nullable(rows) for name, rows in data["cost"].items()},
            fixed=data.get("fixed"),
            groups=data.get("groups"),
            options=data.get("options"),
            reference=data.get("reference"),
            workload=Workload.from_json(workload) if workload else None,
        )

    def __repr__(self) -> str:
        return f"ChoiceProblem({self.num_groups} groups x {self.num_options} options, " + (
            f"{', '.join(self.cost)})"
        )


@dataclass(frozen=True, eq=False)
class Allocation:
    """The answer to a :class:`ChoiceProblem` with its certificate.

    Attributes:
        choice: option taken in each group, [G].
        loss: its summed loss.
        cost: its cost by resource, fixed costs included.
        bound: no choice within the budget has a smaller loss than this.
        gap: ``(loss - bound) / |loss|``; the denominator is never smaller than 1e-9 of the
            largest losses' sum, so that losses of both signs that cancel do not make it explode.
        price: shadow price of each limited resource: the loss saved per unit by which its limit
            is relaxed (raised if an upper, lowered if a lower limit), >= 0, and 0 where the limit
            does not bind. These are the dual values of the linear relaxation (the optimal Lagrange
            multipliers): exact for a fractional allocation and small changes, else a trend.
        status: "optimal" (the gap asked for is reached), "time_limit", or "heuristic" (a solver
            that promises no gap has not reached it; the bound is true all the same).
        seconds: wall time of the search.
        solver: the solver's name.
        groups: names of the groups, [G].
        labels_G: labels of the options taken, [G].
    """

    choice: Int[np.ndarray, " G"]
    loss: float
    cost: Cost
    bound: float
    gap: float
    price: dict[str, float]
    status: str
    seconds: float
    solver: str
    groups: tuple[str, ...] = ()
    labels_G: tuple[str, ...] = ()

    def labels(self) -> list[str]:
        """Label of the option taken in each group, [G]."""
        return list(self.labels_G)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON dictionary."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data |= {"choice": self.choice.tolist(), "cost": dict(self.cost), "price": dict(self.price)}
        data |= {"groups": list(self.groups), "labels": list(data.pop("labels_G"))}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Allocation:
        """Inverse of :meth:`to_json`."""
        fields = dict(data)
        fields |= {"choice": np.array(data["choice"], dtype=np.int64), "cost": Cost(data["cost"])}
        fields |= {"groups": tuple(data["groups"]), "labels_G": tuple(fields.pop("labels"))}
        return cls(**fields)

    def __repr__(self) -> str:
        return (
            f"Allocation(loss={self.loss:.6g}, bound={self.bound:.6g}, gap={self.gap:.2g}, "
            f"{self.cost}, {self.status} by {self.solver} in {self.seconds:.3g} s)"
        )


def _rectangle(
    entries: Any, name: str, padding: float
) -> tuple[Float[np.ndarray, "G K"], list[int]]:
    """Equal or ragged rows as a fresh [G, K] array, and the length of each row."""
    try:
        rows = [np.array(row, dtype=np.float64) for row in entries]
    except (TypeError, ValueError):
        raise UserError(f"{name} must be numbers, groups x options") from None
    if not rows or any(row.ndim != 1 or row.size == 0 for row in rows):
        raise UserError(f"{name} must be numbers, groups x options, with one of each at least")
    lengths = [row.size for row in rows]
    array_GK = np.full((len(rows), max(lengths)), padding)
    for row_K, values in zip(array_GK, rows, strict=True):
        row_K[: values.size] = values
    return array_GK, lengths


def _labels(options: Sequence[Any] | None, lengths: list[int], K: int) -> tuple[tuple, ...]:
    if options is None:
        options = [str(k) for k in range(K)]
    if all(isinstance(label, (list, tuple)) for label in options):
        labels = tuple(tuple(map(str, group)) for group in options)
    elif len(options) == K:
        labels = tuple(tuple(map(str, options[:length])) for length in lengths)
    else:
        raise UserError(f"options has {len(options)} labels for {K} options")
    if [len(group) for group in labels] != lengths:
        raise UserError("options and loss differ in shape")
    return labels


def _nullable(array_GK: Float[np.ndarray, "G K"], options: tuple) -> list[list[float | None]]:
    return [
        [value if math.isfinite(value) else None for value in row[: len(labels)].tolist()]
        for row, labels in zip(array_GK, options, strict=True)
    ]


def _from_nullable(rows: list[list[float | None]]) -> list[list[float]]:
    return [[math.nan if value is None else value for value in row] for row in rows]
