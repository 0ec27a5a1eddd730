"""Which numbers of a part's runs are its frontier, and what they are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptive.core.collect.axes import WALL, choose_axis, number
from adaptive.core.collect.gather import Run
from adaptive.core.errors import UserError
from adaptive.core.frontiers.children import REFERENCE, Child
from adaptive.core.frontiers.config import FrontiersConfig
from adaptive.core.frontiers.curve import Curve, Point, curve_of
from adaptive.core.run import Axis, Task


def refuse_unknown(config: FrontiersConfig, name: str, run: Run) -> None:
    """Ends a part whose settings ask for numbers that its runs do not measure.

    Args:
        config: of the run.
        name: of the part.
        run: of it, and done.

    Raises:
        UserError: there is no such number in its summary.
    """
    part = config.wanted[name]
    asked = {"cost": part.cost, "quality": part.quality}
    asked |= {"reference.cost": part.reference.cost, "reference.quality": part.reference.quality}
    for setting, wanted in asked.items():
        if wanted is not None and wanted not in (WALL, *run.summary):
            choose_axis(f"parts.{name}.{setting}", wanted, None, (), [run])


def axes(config: FrontiersConfig, name: str, task: Task, runs: Sequence[Run]) -> tuple[Axis, Axis]:
    """The two numbers of a part's frontier.

    Raises:
        UserError: nothing is asked for, and no run has what its task trades.
    """
    part = config.wanted[name]
    found = []
    for side, best, known in (
        ("cost", part.cost_best, task.cost),
        ("quality", part.quality_best, task.quality),
    ):
        setting = f"parts.{name}.{side}"
        axis = choose_axis(setting, getattr(part, side), best, known, runs)
        if axis is None and runs:
            have = sorted({k for run in runs for k in run.summary if number(run, k) is not None})
            raise UserError(
                f"{setting} is not set, and no run has what the task {task.name} trades: choose "
                f"one of {', '.join(have)}"
            )
        found.append(axis or next(iter(known), Axis("")))
    return found[0], found[1]


def frontier_of(
    config: FrontiersConfig,
    name: str,
    mine: Sequence[Child],
    done: Mapping[str, Run],
    axes: tuple[Axis, Axis],
) -> Curve:
    """The frontier of a part's finished runs.

    Args:
        config: of the run.
        name: of the part.
        mine: all its runs.
        done: those that have ended well.
        axes: what is spent, and what it buys.
    """
    setting, names = config.wanted[name].reference, (axes[0].name, axes[1].name)
    lacking = f"parts.{name}.reference names none"
    base = done.get(REFERENCE)
    if setting.set is not None and base is None:
        lacking = "the run of the reference failed"
    elif setting.set is not None or setting.cost is not None:
        lacking = "the reference's cost or quality was not measured"
    points = []
    for child in mine:
        run = done.get(child.name)
        if (
            run is None
            or child.reference
            or (values := _pair((run, names[0]), (run, names[1]))) is None
        ):
            continue
        # What a run measures of the reference in turns with itself counts before another run's.
        cost = (base, names[0]) if setting.cost is None else (run, setting.cost)
        quality = (base, names[1]) if setting.quality is None else (run, setting.quality)
        points.append((Point(child.name, *values), _pair(cost, quality)))
    return curve_of(points, *axes, lacking)


def _pair(
    cost: tuple[Run | None, str], quality: tuple[Run | None, str]
) -> tuple[float, float] | None:
    """A number of one run and one of another; None where either is missing."""
    found = [None if run is None else number(run, name) for run, name in (cost, quality)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])
