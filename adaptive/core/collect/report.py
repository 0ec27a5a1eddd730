"""The page of several runs: their frontier, their table, what failed and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive.core.collect.axes import WALL, number
from adaptive.core.collect.config import CollectConfig
from adaptive.core.collect.gather import Collected, Run
from adaptive.core.collect.stages import Trade, link
from adaptive.core.report import Report, frontier_plot
from adaptive.core.run.directory import REPORT
from adaptive.core.run.launch.job import LOG
from adaptive.core.run.progress import duration

MOST_COLUMNS = 8
MOST_LETTERS = 44
"""Of a run's name in the page's table; the end of a long one tells it from others."""


def page(
    config: CollectConfig, found: Collected, trade: Trade | None, home: Path, table: Path
) -> Report:
    """The page, without its provenance.

    Args:
        config: of the task.
        found: the runs.
        trade: their frontier; None where they have none.
        home: directory that the page will be in.
        table: directory of ``table.csv``.
    """
    report = Report(f"Runs of {found.recipe}", f"below `{config.runs}`")
    done = found.of("done")
    counts = {"runs": len(found.runs), "done": len(done), "failed": len(found.of("failed"))}
    counts |= {"unfinished": len(found.of("unfinished", "running"))}
    report.numbers(counts | ({"on the frontier": len(trade.best)} if trade else {}))
    if trade is not None:
        _frontier(report, found, trade)
    report.section("Runs")
    columns = config.columns if config.columns is not None else _telling(found, trade)
    best = set(trade.best) if trade else set()
    rows = []
    for run in found.runs:
        name = _named(run, config, home)
        row: dict[str, Any] = {"run": f"**{name}**" if run.path in best else name}
        row |= {"state": run.state}
        row |= {key: _text(run.settings.get(key)) for key in found.settings}
        row |= {column: run.summary.get(column) for column in columns}
        wall = run.record.get(WALL)
        rows.append(row | {"time": None if wall is None else duration(wall)})
    report.table(rows, "Each run links to its own page; bold ones are on the frontier.")
    where = link(home / "artifacts" / table.name / "table.csv", home)
    report.text(f"All numbers of all runs: [table.csv]({where}).")
    _not_done(report, config, found, home)
    _left_out(report, found, home)
    return report


def _frontier(report: Report, found: Collected, trade: Trade) -> None:
    report.section("Frontier")
    if not trade.points:
        report.text(f"No run has both `{trade.x.name}` and `{trade.y.name}` yet.")
        return
    by_path = {run.path: run for run in found.runs}
    dominated = [path for path in trade.points if path not in trade.best]

    def notes(paths: list[Path]) -> list[str]:
        return [_note(by_path[path], found) for path in paths]

    # The plot draws a frontier in the order of x, and notes go with its points.
    best = sorted(trade.best, key=lambda path: trade.points[path][0])
    figure = frontier_plot(
        [trade.points[path] for path in best],
        x=trade.x.name,
        y=trade.y.name,
        others={"dominated": [trade.points[path] for path in dominated]} if dominated else None,
        notes={"frontier": notes(best), "dominated": notes(dominated)},
    )
    report.figure(figure, f"{_better(trade)} Pointing at a run tells its settings.")
    missing = len(found.of("done")) - len(trade.points)
    if missing:
        report.text(f"{missing} runs that are done do not have both numbers.")


def _better(trade: Trade) -> str:
    x, y = "more" if trade.x.more else "less", "More" if trade.y.more else "Less"
    return f"{y} `{trade.y.name}` and {x} `{trade.x.name}` are better."


def _not_done(report: Report, config: CollectConfig, found: Collected, home: Path) -> None:
    left = found.of("failed", "unfinished", "running")
    if not left:
        return
    report.section("Not done")
    rows = [
        {
            "run": _named(run, config, home),
            "state": run.state,
            "stage": run.stage,
            "why": run.error if run.state == "failed" else None,
            "log": f"[{LOG}]({link(run.path / LOG, home)})" if (run.path / LOG).exists() else None,
        }
        for run in left
    ]
    report.table(rows, "The sweep's own command, again, goes on with all of these.")


def _left_out(report: Report, found: Collected, home: Path) -> None:
    if not found.strangers and not found.others:
        return
    report.section("Left out")
    lines = [f"- {count} runs of the recipe `{name}`" for name, count in found.others.items()]
    lines += [
        f"- [{path.name}]({link(path, home)}), of another configuration: `{difference}`"
        for path, difference in found.strangers.items()
    ]
    report.text("\n".join(lines))


def _telling(found: Collected, trade: Trade | None) -> list[str]:
    """Names of the frontier's numbers, then of the first others that differ between runs."""
    done = found.of("done")
    names = list(dict.fromkeys(name for run in done for name in run.summary))
    differ = [n for n in names if len({v for r in done if (v := number(r, n)) is not None}) > 1]
    first = [trade.x.name, trade.y.name] if trade else []
    shown = {WALL, *found.settings}
    return [name for name in dict.fromkeys([*first, *differ]) if name not in shown][:MOST_COLUMNS]


def _named(run: Run, config: CollectConfig, home: Path) -> str:
    """A run's name, with a link to its page where it has one, else to its directory."""
    try:
        name = run.path.relative_to(config.runs).as_posix()
    except ValueError:
        name = str(run.path)
    name = run.path.name if name == "." else name
    if len(name) > MOST_LETTERS:  # its settings have columns of their own
        name = f"{name[: MOST_LETTERS - 10]}…{name[-8:]}"
    target = run.path / REPORT if (run.path / REPORT).exists() else run.path
    return f"[{name}]({link(target, home)})"


def _note(run: Run, found: Collected) -> str:
    lines = [f"{name}: {_text(run.settings.get(name))}" for name in found.settings]
    return "\n".join([*lines, str(run.path)])


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
