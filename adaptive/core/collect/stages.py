"""The stages of a ``collect`` run: collect -> report."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaptive.core.collect.axes import WALL, choose_axis, number
from adaptive.core.collect.config import CollectConfig
from adaptive.core.collect.gather import Collected, Run, gather
from adaptive.core.collect.pareto import not_dominated
from adaptive.core.run import TASKS, Axis, Stage, StageContext
from adaptive.core.run.atomic import atomic_write_json, atomic_write_text
from adaptive.core.run.manifest import digest
from adaptive.core.run.progress import say


@dataclass(frozen=True)
class Trade:
    """The plane of a frontier, and the runs in it.

    Attributes:
        x: what is spent.
        y: what it buys.
        points: runs that have both numbers, to them.
        best: those that no other dominates, in the order of x.
    """

    x: Axis
    y: Axis
    points: dict[Path, tuple[float, float]]
    best: list[Path]


def stages(config: CollectConfig) -> list[Stage]:
    """The stages of a ``collect`` run, in order.

    Raises:
        UserError: nothing that can be collected, see :func:`~adaptive.core.collect.gather`.
    """
    found = gather(Path(config.runs), config.recipe)
    made_of = digest([found.runs, found.strangers, found.others])
    trade = trade_of(found, config)
    return [
        Stage("collect", partial(collect, found, trade), (), [made_of, config]),
        Stage("report", partial(report, config, found, trade), ("collect",), config),
    ]


def collect(found: Collected, trade: Trade | None, ctx: StageContext) -> None:
    """Writes ``table.csv`` and ``frontier.json``, and tells what is not done."""
    rows = [row(run, found) for run in found.runs]
    columns = list(dict.fromkeys(key for one in rows for key in one))
    columns.sort(key=lambda key: key == "error")  # last, as it is the longest
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in one.items()} for one in rows)
    atomic_write_text(ctx.dir / "table.csv", text.getvalue())
    for run in found.of("failed", "running", "unfinished"):
        where = f" at {run.stage}" if run.stage else ""
        say(f"[collect] {run.state}{where}: {run.path}" + (f": {run.error}" if run.error else ""))
    for path, difference in found.strangers.items():
        say(f"[collect] left out, of another configuration: {path} ({difference})")
    for recipe, count in found.others.items():
        say(f"[collect] left out: {count} runs of the recipe {recipe}")
    ctx.summary({"recipe": found.recipe, "runs": len(found.runs)})
    for state in ("done", "failed", "running", "unfinished"):
        ctx.summary({f"runs.{state}": len(found.of(state))})
    ctx.summary({"left_out.configuration": len(found.strangers)})
    ctx.summary({"left_out.recipe": sum(found.others.values())})
    points = [] if trade is None else [{"run": str(p), **_at(trade, p)} for p in trade.best]
    atomic_write_json(ctx.dir / "frontier.json", points)
    if trade is not None:
        ctx.summary({"frontier.x": trade.x.name, "frontier.y": trade.y.name})
    ctx.summary({"frontier.points": len(points)})
    for i, point in enumerate(points):
        ctx.summary({f"frontier.{i}.{key}": value for key, value in point.items()})


def report(config: CollectConfig, found: Collected, trade: Trade | None, ctx: StageContext) -> None:
    """The page."""
    from adaptive.core.collect.report import page

    shown = page(config, found, trade, ctx.run.path, ctx.input("collect"))
    shown.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def row(run: Run, found: Collected) -> dict[str, Any]:
    """A run's line of the table: where, state, what it changed, its result, why it failed."""
    settings = {key: run.settings.get(key) for key in found.settings}
    wall = {WALL: run.record.get(WALL)}
    error = {"error": run.error if run.state == "failed" else None}
    # A setting and a number of the summary may have one name; each gets its column.
    result = {f"{k} (result)" if k in settings else k: v for k, v in run.summary.items()}
    return {"run": str(run.path), "state": run.state, **settings, **result, **wall, **error}


def trade_of(found: Collected, config: CollectConfig) -> Trade | None:
    """The frontier of the runs that are done; None where their task names none and none is asked.

    Raises:
        UserError: a number is asked for that no run has.
    """
    # A run of a task of somebody's own is collected without its module, which only numbers need.
    task = {name: TASKS[name] for name in TASKS}.get(found.task)
    done = found.of("done")
    x = choose_axis("x", config.x, config.x_best, task.cost if task else (), done)
    y = choose_axis("y", config.y, config.y_best, task.quality if task else (), done)
    if x is None or y is None:
        return None
    points = {}
    for run in done:
        across, up = number(run, x.name), number(run, y.name)
        if across is not None and up is not None:
            points[run.path] = (across, up)
    best = not_dominated(list(points.values()), x_more=x.more, y_more=y.more)
    return Trade(x, y, points, [list(points)[i] for i in best])


def _at(trade: Trade, path: Path) -> dict[str, float]:
    return {"x": trade.points[path][0], "y": trade.points[path][1]}


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def link(path: Path, start: Path) -> str:
    """A relative address of ``path`` for a page in ``start``."""
    from urllib.parse import quote

    relative = Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
    return quote(relative if relative.startswith("../") else f"./{relative}", safe="/=,+")
