"""Budgets: limits on named resources, absolute or relative to a reference."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from adaptive.core.errors import UserError
from adaptive.core.resource import RESOURCES, format_quantity, parse_quantity

if TYPE_CHECKING:
    from adaptive.core.choice import ChoiceProblem

_RELATIVE = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([%x×])\s*", re.IGNORECASE)


class Cost(dict[str, float]):
    """What something spends: resource name to amount in the resource's unit, printed with units.

    >>> print(Cost(latency=0.03, memory=80 * 2**30))
    latency 30 ms, memory 80 GiB
    """

    def __add__(self, other: Mapping[str, float]) -> Cost:
        return Cost(
            {name: self.get(name, 0.0) + other.get(name, 0.0) for name in {**self, **other}}
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {format_quantity(value, name) if name in RESOURCES else f'{value:.4g}'}"
            for name, value in self.items()
        )


@dataclass(frozen=True)
class Limit:
    """One limit of a budget in absolute numbers, with what is needed to talk about it.

    Attributes:
        resource: the resource of the problem that is limited (latency for a throughput).
        upper: an upper limit if true, else a lower one.
        value: the limit in the resource's unit.
        setting: what the user set, for example ``"budget.throughput=1.5x"``.
        rate: for a throughput that is known in tokens/s, that number; otherwise None.
    """

    resource: str
    upper: bool
    value: float
    setting: str
    rate: float | None = None


class Limits(NamedTuple):
    """Lower and upper limit of one resource in its unit; None where there is none."""

    min: float | None
    max: float | None


class _Bound(NamedTuple):
    resource: str
    upper: bool
    form: Literal["absolute", "share", "factor"]
    number: float
    setting: str


class Budget:
    """Limits on resources.

    ``Budget({"latency": "30ms", "memory": "80GiB", "params": ">=2e9"})``. A value is

    - a number in the resource's unit, or a text with a unit (``"80GiB"``, ``"30ms"``);
    - a share of the reference (usually the parent): ``"60%"``;
    - a factor. On latency and throughput a factor from 1 up is a *speed-up*: ``"1.5x"`` asks for
      ``latency <= reference / 1.5`` or ``throughput >= 1.5 * reference``. Below 1 it is a multiple
      like on any other resource: ``"0.6x"`` on latency asks for ``latency <= 0.6 * reference``;
    - any of these with ``"<="`` or ``">="`` in front, or ``{"min": ..., "max": ...}``. Without a
      sign it is an upper limit, on throughput a lower one;
    - None: no limit.

    A throughput becomes a latency at the problem's workload: ``latency <= tokens / throughput``.

    Args:
        limits: resource name to value.

    Raises:
        UserError: for a resource or unit that is unknown, named as ``budget.<resource>``.
    """

    def __init__(self, limits: Mapping[str, Any] | None = None):
        self.limits: dict[str, Any] = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in (limits or {}).items()
            if value is not None
        }
        self._bounds: list[_Bound] = []
        for name, value in self.limits.items():
            if name not in RESOURCES:
                raise UserError(f"budget.{name}: {RESOURCES.unknown(name)}")
            self._bounds += _parse(name, value)

    def absolute(self, problem: ChoiceProblem) -> list[Limit]:
        """The limits in absolute numbers, at most one of each side per resource, the tightest."""
        tightest: dict[tuple[str, bool], Limit] = {}
        for bound in self._bounds:
            limit = _absolute(bound, problem)
            old = tightest.get((limit.resource, limit.upper))
            if old is None or (limit.value < old.value) == limit.upper:
                tightest[limit.resource, limit.upper] = limit
        for (name, upper), limit in tightest.items():
            other = tightest.get((name, not upper))
            if upper and other and other.value > limit.value:
                raise UserError(f"{other.setting} and {limit.setting} contradict each other")
        return list(tightest.values())

    def resolve(self, problem: ChoiceProblem) -> dict[str, Limits]:
        """Lower and upper limit of every limited resource, in absolute numbers.

        Args:
            problem: gives the reference's cost for relative limits and the workload for throughput.

        Returns:
            Resource name to (min, max), each in the resource's unit or None.

        Raises:
            UserError: if a limited resource has no cost in the problem, or a throughput in tokens/s
                has no workload, or a lower limit lies above the upper one.
        """
        limits: dict[str, Limits] = {}
        for limit in self.absolute(problem):
            old = limits.get(limit.resource, Limits(None, None))
            side = {"max": limit.value} if limit.upper else {"min": limit.value}
            limits[limit.resource] = old._replace(**side)
        return limits

    def to_json(self) -> dict[str, Any]:
        """The limits as they were given."""
        return {k: dict(v) if isinstance(v, dict) else v for k, v in self.limits.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Budget:
        """Inverse of :meth:`to_json`."""
        return cls(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Budget) and self.limits == other.limits

    __hash__ = None

    def __repr__(self) -> str:
        return f"Budget({self.limits!r})"

    def __str__(self) -> str:
        return ", ".join(bound.setting.removeprefix("budget.") for bound in self._bounds) or "none"


def _parse(name: str, value: Any) -> list[_Bound]:
    if isinstance(value, Mapping):
        wrong = sorted(set(map(str, value)) - {"min", "max"})
        if wrong:
            raise UserError(f"budget.{name}.{wrong[0]} is not a limit, use min and max")
        sides = [(upper, side, value.get(side)) for side, upper in (("min", False), ("max", True))]
        return [
            _bound(name, upper, entry, f"budget.{name}.{side}={entry}")
            for upper, side, entry in sides
            if entry is not None
        ]
    upper = not RESOURCES[name].higher_is_better
    setting = f"budget.{name}={value}"
    if isinstance(value, str) and value.strip()[:2] in ("<=", ">="):
        upper = value.strip()[:2] == "<="
        setting = f"budget.{name}{value.strip()}"
        value = value.strip()[2:]
    return [_bound(name, upper, value, setting)]


def _bound(name: str, upper: bool, value: Any, setting: str) -> _Bound:
    resource = RESOURCES[name]
    match = _RELATIVE.fullmatch(value) if isinstance(value, str) else None
    if match:
        number = float(match[1]) / (100 if match[2] == "%" else 1)
        if not (number > 0 and math.isfinite(number)):
            raise UserError(f"{setting} must be above 0")
        return _Bound(name, upper, "share" if match[2] == "%" else "factor", number, setting)
    try:
        number = parse_quantity(value, resource, setting=f"budget.{name}")
    except UserError as error:
        raise UserError(f"{error}, or relative to the parent: 60% or 0.5x") from None
    if number < 0 or (number == 0 and resource.higher_is_better):
        raise UserError(f"{setting} must {'be above 0' if number == 0 else 'not be negative'}")
    return _Bound(name, upper, "absolute", number, setting)


def _absolute(bound: _Bound, problem: ChoiceProblem) -> Limit:
    """``bound`` in the unit of the resource that the problem prices."""
    rate = RESOURCES[bound.resource].kind == "rate"
    name = "latency" if rate else bound.resource
    if name not in problem.cost:
        needs = f"needs a cost for {name}" if rate else "has no cost"
        raise UserError(
            f"{bound.setting}: {bound.resource} {needs} in this problem, "
            f"which prices {', '.join(problem.cost) or 'nothing'}"
        )
    if bound.form == "absolute":
        value = bound.number
        if rate:
            if problem.workload is None:
                raise UserError(
                    f"{bound.setting} needs a workload (batch, prompt, output) to become a "
                    "latency; give the problem one, or write a speed-up such as 1.5x"
                )
            value = problem.workload.tokens / bound.number
    else:
        reference = problem.reference_cost[name]
        if not (math.isfinite(reference) and reference > 0):
            raise UserError(
                f"{bound.setting} is relative, but the reference's {name} is {reference}; "
                "write an absolute limit"
            )
        speedup = rate or (
            RESOURCES[name].kind == "time" and bound.form == "factor" and bound.number >= 1
        )
        value = reference / bound.number if speedup else reference * bound.number
    tokens_per_s = problem.workload.tokens / value if rate and problem.workload else None
    return Limit(name, bound.upper != rate, value, bound.setting, tokens_per_s)
