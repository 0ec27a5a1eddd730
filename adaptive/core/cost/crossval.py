"""How far off a table's interpolation is: measured points left out and predicted from the rest.

Each interior point of each axis is predicted from its neighbours on its line of the grid, twice:
left out alone, and with its whole value of the axis (an FFN width at all token counts), which is
harder on the fitted model. The model's coefficients are fitted again without what is left out; its
terms are chosen again for whole values, and kept for single points, which hardly bear on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptive.core.cost.fit import Fit, Group, Samples, fit
from adaptive.core.cost.interpolate import Grid, Point
from adaptive.core.cost.rows import RowKey, Series, group_of


@dataclass(frozen=True)
class Held:
    """A point left out.

    Attributes:
        key: what was measured.
        axis: along which it was predicted: "intermediate", "kv_heads", "batch" (the number of
            tokens, of pointwise blocks) or "length".
        whole: the whole value of the axis was left out, at all other sizes.
        measured: seconds.
        predicted: seconds.
    """

    key: RowKey
    axis: str
    whole: bool
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Relative, with its sign."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class CrossValidation:
    """All points left out; the errors below are absolute and relative to the measured time."""

    held: tuple[Held, ...]

    @property
    def mean(self) -> float:
        """Mean error of points left out alone; NaN where the table has no interior point."""
        return _mean(h for h in self.held if not h.whole)

    @property
    def worst(self) -> Held | None:
        """The point left out alone that was predicted worst."""
        alone = [h for h in self.held if not h.whole]
        return max(alone, key=lambda h: abs(h.error), default=None)

    @property
    def by_axis(self) -> dict[str, float]:
        """Mean error by axis, and by "AXIS, whole" where whole values were left out."""
        return self._by(lambda h: f"{h.axis}, whole" if h.whole else h.axis, self.held)

    def along(self, *axes: str) -> float:
        """Mean error of points left out alone along some axes; NaN where there are none."""
        return _mean(h for h in self.held if h.axis in axes and not h.whole)

    @property
    def by_kind(self) -> dict[str, float]:
        """Mean error of points left out alone, by kind of block and phase."""
        alone = [h for h in self.held if not h.whole]
        return self._by(lambda h: f"{h.key.block.partition('(')[0]} {h.key.phase}", alone)

    @staticmethod
    def _by(name: Callable[[Held], str], held: Iterable[Held]) -> dict[str, float]:
        groups: dict[str, list[Held]] = {}
        for h in held:
            groups.setdefault(name(h), []).append(h)
        return {key: _mean(group) for key, group in sorted(groups.items())}

    def __str__(self) -> str:
        if self.worst is None:
            return "leave-one-out: no point has measured neighbours on both sides of an axis"
        key = self.worst.key
        at = f"{key.block} {key.phase} {key.dtype}, batch {key.batch}, length {key.length}"
        rows = [("all", self.mean), *self.by_axis.items(), *self.by_kind.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(
            [
                f"leave-one-out error of {sum(not h.whole for h in self.held)} points",
                *(f"  {name:{width}}  {error:6.2%}" for name, error in rows),
                f"  worst {self.worst.error:+.1%}: {at} (along {self.worst.axis})",
            ]
        )


def _mean(held: Iterable[Held]) -> float:
    errors = [abs(h.error) for h in held]
    return float(np.mean(errors)) if errors else float("nan")


def cross_validate(
    series: Mapping[Any, Series], samples: Mapping[Group, Samples]
) -> CrossValidation:
    """Predicts every interior point of every grid from the others (see the module's text)."""
    models = {group: _Refit(group, rows) for group, rows in samples.items()}
    return CrossValidation(
        tuple(
            held
            for one in series.values()
            for axis in range(len(one.names))
            for held in _along_axis(one, axis, models)
        )
    )


class _Refit:
    """Fits of one group without some of its rows."""

    def __init__(self, group: Group, samples: Samples):
        self.group, self.samples = group, samples
        self.index = {key: i for i, key in enumerate(samples.keys)}
        full = fit(group, samples.counts_RT, samples.seconds_R)
        self.terms = full.terms if full else None

    def counts(self, key: RowKey) -> np.ndarray:
        return self.samples.counts_RT[self.index[key]]

    def without(self, keys: Iterable[RowKey], *, select: bool) -> Fit | None:
        keep = np.ones(len(self.index), dtype=bool)
        keep[[self.index[key] for key in keys]] = False
        terms = None if select else self.terms
        return fit(self.group, self.samples.counts_RT[keep], self.samples.seconds_R[keep], terms)


def _along_axis(series: Series, axis: int, models: Mapping[Group, _Refit]) -> Iterator[Held]:
    times = series.points
    lines: dict[Point, list[Point]] = {}
    for point in sorted(times):
        lines.setdefault((*point[:axis], *point[axis + 1 :]), []).append(point)
    values: dict[float, list[list[Point]]] = {}
    for line in lines.values():
        for i in range(1, len(line) - 1):
            values.setdefault(line[i][axis], []).append(line)
    logs = (0,) if axis in series.logs else ()
    for value, crossing in values.items():
        key = next(iter(series.rows.values()))[0].key
        group = group_of(key)
        refit = models[group] if group else None
        gone = [row.key for p, rows in series.rows.items() if p[axis] == value for row in rows]
        broad = refit.without(gone, select=True) if refit else None
        for line in crossing:
            point = next(p for p in line if p[axis] == value)
            keys = [row.key for row in series.rows[point]]
            narrow = refit.without(keys, select=False) if refit else None
            for model, whole in ((narrow, False), (broad, True)):
                modelled = {}
                if model and refit:
                    counts_PT = np.stack([refit.counts(series.rows[p][0].key) for p in line])
                    modelled = dict(zip(line, model.seconds(counts_PT).tolist(), strict=True))
                # A grid of one axis: the line without the point.
                rest = [p for p in line if p != point]
                grid = Grid(
                    {(p[axis],): times[p] for p in rest},
                    {(p[axis],): modelled[p] for p in rest} if modelled else None,
                    logs,
                )
                asked = np.array([modelled[point]]) if modelled else None
                predicted = float(grid.at([(value,)], asked)[0][0])
                yield Held(keys[0], series.names[axis], whole, times[point], predicted)
