"""The stages of a ``frontiers`` run: runs_PART for each part -> report -> complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaptive.core.collect.axes import WALL, choose_axis, number
from adaptive.core.collect.gather import Run
from adaptive.core.errors import UserError
from adaptive.core.frontiers.children import REFERENCE, Child, children, run_children
from adaptive.core.frontiers.config import FrontiersConfig
from adaptive.core.frontiers.curve import Curve, Half, Point, curve_of
from adaptive.core.run import TASKS, Axis, Stage, StageContext, Task
from adaptive.core.run.atomic import atomic_write_json
from adaptive.core.run.directory import REPORT

FILE = "part.json"


@dataclass(frozen=True)
class Part:
    """What the runs of a part found, as ``part.json`` holds it.

    Attributes:
        cost, quality: names of the numbers.
        more: whether more of each is better.
        curve: the points; each is named by its run's directory within ``home``.
        budgets: names of all runs, the failed ones too, to what they might spend.
        failed: names of runs to why they failed.
        home: the directory of the runs.
    """

    cost: str
    quality: str
    more: tuple[bool, bool]
    curve: Curve
    budgets: dict[str, str]
    failed: dict[str, str]
    home: str

    @classmethod
    def read(cls, directory: Path) -> Part:
        """The part that a stage left."""
        found = json.loads((directory / FILE).read_text(encoding="utf-8"))
        curve = found.pop("curve")
        reference = curve["reference"]
        return cls(
            **{**found, "more": tuple(found["more"])},
            curve=Curve(
                [Point(**point) for point in curve["points"]],
                None if reference is None else Point(**reference),
                Half(**curve["half"]),
            ),
        )


def stages(config: FrontiersConfig) -> list[Stage]:
    """The stages of a ``frontiers`` run, in order.

    Raises:
        UserError: some part cannot run; tells of all such parts, before anything is computed.
    """
    found, wrong = {}, {}
    for name in config.wanted:
        try:
            found[name] = children(config, name)
        except UserError as error:
            wrong[name] = str(error)
    if wrong:
        told = "; ".join(f"parts.{name}: {why}" for name, why in wrong.items())
        sets = ", ".join(f"parts.{name}.set" for name in wrong)
        without = " ".join(f"parts.{name}=null" for name in wrong)
        raise UserError(f"{told} (set what is missing in {sets}, or leave out: {without})")
    parts = [
        Stage(
            stage_of(name),
            partial(measure, config, name, mine),
            (),
            [config.wanted[name], config.runs, [child.mark for child in mine]],
        )
        for name, mine in found.items()
    ]
    names = tuple(stage.name for stage in parts)
    return [
        *parts,
        Stage("report", partial(report, config), names, config),
        Stage("complete", partial(refuse_failed, config), (*names, "report")),
    ]


def stage_of(name: str) -> str:
    """Of a part."""
    return f"runs_{name}"


def measure(config: FrontiersConfig, name: str, mine: Sequence[Child], ctx: StageContext) -> None:
    """Runs a part and writes its frontier.

    Raises:
        UserError: the runs have no number that the part's settings ask for.
    """
    home = (Path(config.runs) if config.runs else ctx.run.path / "runs") / name
    # The first run tells whether the numbers that are asked for exist.
    failed = run_children(mine, home, partial(refuse_unknown, config, name))
    done = _done(mine, home, failed)
    task = TASKS[mine[0].experiment.config.task]
    cost, quality = axes(config, name, task, list(done.values()))
    part = Part(
        cost.name,
        quality.name,
        (cost.more, quality.more),
        _curve(config, name, mine, done, (cost, quality)),
        {child.name: child.budget for child in mine},
        failed,
        str(home),
    )
    atomic_write_json(ctx.dir / FILE, part)
    if failed:
        ctx.again = f"{len(failed)} of its {len(mine)} runs failed"
    ctx.summary({f"{name}.{key}": value for key, value in numbers(part).items()})


def numbers(part: Part) -> dict[str, Any]:
    """A part's share of the summary."""
    curve, half = part.curve, part.curve.half
    found: dict[str, Any] = {
        "points": len(curve.best),
        "at_half": half.quality,
        "at_half.kept": half.kept,
        "at_half.how": half.how,
        "cost": part.cost,
        "quality": part.quality,
        "reference.cost": None if curve.reference is None else curve.reference.cost,
        "reference.quality": None if curve.reference is None else curve.reference.quality,
        "runs": len(part.budgets),
        "runs.failed": len(part.failed),
    }
    for i, point in enumerate(curve.best):
        told = {"run": str(Path(part.home, point.name)), "budget": part.budgets[point.name]}
        told |= {key: getattr(point, key) for key in ("cost", "quality", "share", "kept")}
        found |= {f"{i}.{key}": value for key, value in told.items()}
    return found


def refuse_unknown(config: FrontiersConfig, name: str, directory: Path) -> None:
    """Ends a part whose settings ask for numbers that its runs do not measure.

    Args:
        config: of the run.
        name: of the part.
        directory: of a run of it that is done.

    Raises:
        UserError: there is no such number in its summary.
    """
    part, run = config.wanted[name], Run.read(directory)
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


def _curve(
    config: FrontiersConfig,
    name: str,
    mine: Sequence[Child],
    done: Mapping[str, Run],
    axes: tuple[Axis, Axis],
) -> Curve:
    """The frontier of a part's finished runs."""
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


def _done(mine: Sequence[Child], home: Path, failed: Mapping[str, str]) -> dict[str, Run]:
    return {child.name: Run.read(home / child.name) for child in mine if child.name not in failed}


def report(config: FrontiersConfig, ctx: StageContext) -> None:
    """The page."""
    from adaptive.core.frontiers.report import page

    parts = {name: Part.read(ctx.input(stage_of(name))) for name in config.wanted}
    shown = page(config, parts, ctx.run.path)
    shown.provenance(config, ctx.run.path).save(ctx.dir / REPORT)


def refuse_failed(config: FrontiersConfig, ctx: StageContext) -> None:
    """Ends the run as failed where some of its runs have failed, after all others are shown.

    Raises:
        UserError: there were such runs.
    """
    parts = {name: Part.read(ctx.input(stage_of(name))) for name in config.wanted}
    failed = [f"{name}/{run}: {why}" for name, p in parts.items() for run, why in p.failed.items()]
    if failed:
        total = sum(len(part.budgets) for part in parts.values())
        raise UserError(
            f"{len(failed)} of {total} runs failed: {'; '.join(failed)} (the others are in "
            f"{ctx.input('report') / REPORT}; the same command with hydra.run.dir={ctx.run.path} "
            "tries the failed ones again)"
        )
