"""The stages of a ``frontiers`` run: runs_PART for each part -> report -> complete."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.frontiers.children import Child, children, run_children
from adaptive.core.frontiers.config import FrontiersConfig
from adaptive.core.frontiers.part import Part, numbers
from adaptive.core.frontiers.trade import axes, frontier_of, refuse_unknown
from adaptive.core.run import TASKS, Stage, StageContext, say
from adaptive.core.run.directory import REPORT


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
            [config.wanted[name], config.runs, [[child.folder, child.mark] for child in mine]],
        )
        for name, mine in found.items()
    ]
    names = tuple(stage.name for stage in parts)
    return [
        *parts,
        Stage("report", partial(report, config), names, config),
        Stage("complete", partial(refuse_failed, config), (*names, "report")),
    ]


def home_of(config: FrontiersConfig, name: str, run: Path) -> Path:
    """The directory of a part's runs.

    Args:
        config: of the run.
        name: of the part.
        run: directory of the run.
    """
    return (Path(config.runs).expanduser() if config.runs else run / "runs") / name


def stage_of(name: str) -> str:
    """Name of the stage of a part."""
    return f"runs_{name}"


def measure(config: FrontiersConfig, name: str, mine: Sequence[Child], ctx: StageContext) -> None:
    """Runs a part and writes its frontier.

    Its runs have directories of their own, outside of the stage's, and so outlive a change of it.

    Raises:
        UserError: the runs have no number that the part's settings ask for.
    """
    home = home_of(config, name, ctx.run.path)
    # A number that there is not is told after the first run, not after the last.
    done, failed = run_children(mine, home, partial(refuse_unknown, config, name))
    task = TASKS[mine[0].experiment.config.task]
    cost, quality = axes(config, name, task, list(done.values()))
    part = Part(
        cost.name,
        quality.name,
        (cost.more, quality.more),
        frontier_of(config, name, mine, done, (cost, quality)),
        {child.name: child.budget for child in mine},
        {child.name: child.folder for child in mine},
        failed,
    )
    part.write(ctx.dir)
    for run in part.unmeasured:
        say(f"{home / part.folders[run]} has not measured both {cost.name} and {quality.name}")
    if failed:
        ctx.again = f"{len(failed)} of its {len(mine)} runs failed"
    ctx.summary({f"{name}.{key}": value for key, value in numbers(part, home).items()})


def report(config: FrontiersConfig, ctx: StageContext) -> None:
    """The page."""
    from adaptive.core.frontiers.report import page

    homes = {name: home_of(config, name, ctx.run.path) for name in config.wanted}
    parts = {name: Part.read(ctx.input(stage_of(name))) for name in config.wanted}
    shown = page(config, parts, ctx.run.path, homes)
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
