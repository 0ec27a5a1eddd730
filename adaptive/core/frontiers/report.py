"""The page of a ``frontiers`` run: the answers, the frontiers, the runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptive.core.collect.stages import link
from adaptive.core.frontiers.config import FrontiersConfig
from adaptive.core.frontiers.part import Part
from adaptive.core.frontiers.plots import kept_plot, panel
from adaptive.core.report import Report
from adaptive.core.report.markup import format_number
from adaptive.core.run.directory import REPORT


def page(
    config: FrontiersConfig, parts: Mapping[str, Part], home: Path, homes: Mapping[str, Path]
) -> Report:
    """The page, without its provenance.

    Args:
        config: of the task.
        parts: by name.
        home: directory that the page will be in.
        homes: directories of the parts' runs.
    """
    count = f"{len(parts)} families" if len(parts) > 1 else "one family"
    report = Report("Frontiers", f"How much quality do {count} keep at half of the cost?")
    tiles, notes = {}, {}
    for name, part in parts.items():
        half = part.curve.half
        tiles[name] = f"{100 * half.kept:.1f} %" if half.kept is not None else None
        notes[name] = half.how if half.kept is None else f"of the quality, {half.how}"
    report.numbers(tiles, notes)
    told = {name: _notes(config, name, part) for name, part in parts.items()}
    curves = {name: part.curve for name, part in parts.items()}
    report.section("Frontiers")
    panels = {
        f"{name}: {_label(config, name, part, 'quality')} over its cost": panel(
            part.curve,
            title=name,
            cost=_spent(config, name, part),
            quality=_label(config, name, part, "quality"),
            notes=told[name],
        )
        for name, part in parts.items()
    }
    report.panels(
        panels,
        "Each family's own quality over its own cost. Dots are runs, the line their frontier, "
        "hollow dots runs that others beat, the diamond the reference; dashed is half of its cost, "
        "the ring the answer there. Pointing at a run tells its budget and its result.",
    )
    if any(curve.reference is not None for curve in curves.values()):
        report.figure(
            kept_plot(curves, told),
            "The same in one picture. Quality kept is the quality over the reference's; of a loss, "
            "the reference's over it.",
        )
    _answers(report, config, parts)
    for name, part in parts.items():
        _runs(report, config, name, part, _links(part, homes[name], home))
    _failed(report, parts, homes, home)
    return report


def _answers(report: Report, config: FrontiersConfig, parts: Mapping[str, Part]) -> None:
    report.section("At half of the cost")
    rows = []
    for name, part in parts.items():
        curve = part.curve
        rows.append(
            {
                "family": f"**{name}**",
                "quality": _label(config, name, part, "quality"),
                "of the reference": _plain(curve.reference.quality if curve.reference else None),
                "at half": _plain(curve.half.quality),
                "kept (%)": None if curve.half.kept is None else 100 * curve.half.kept,
                "how": curve.half.how,
            }
        )
    report.table(rows, "Between two measured points of a frontier the quality is interpolated.")


def _runs(
    report: Report, config: FrontiersConfig, name: str, part: Part, links: Mapping[str, str]
) -> None:
    report.section(name)
    cost, quality = (_label(config, name, part, side) for side in ("cost", "quality"))
    rows = []
    for point in part.curve.known:
        text = links.get(point.name, point.name)  # a reference need not be a run
        bold = point.best and point is not part.curve.reference
        row: dict[str, Any] = {"run": f"**{text}**" if bold else text}
        row |= {cost: point.cost, quality: point.quality}
        if part.curve.reference is not None:
            row["cost (%)"] = None if point.share is None else 100 * point.share
            row["kept (%)"] = None if point.kept is None else 100 * point.kept
        rows.append(row)
    rows += [{"run": links[run]} for run in part.unmeasured] if rows else []
    recipe = config.wanted[name].exp
    if rows:
        lacking = "; those at the end have not measured both numbers" if part.unmeasured else ""
        report.table(
            rows,
            f"Runs of `{recipe}`, from the cheapest; each links to its own page, bold ones are on "
            f"the frontier{lacking}.",
        )
    else:
        report.text(f"No run of `{recipe}` has measured both numbers.")


def _failed(
    report: Report, parts: Mapping[str, Part], homes: Mapping[str, Path], home: Path
) -> None:
    rows = [
        {"family": name, "run": _links(part, homes[name], home)[run], "why": why}
        for name, part in parts.items()
        for run, why in part.failed.items()
    ]
    if rows:
        report.section("Not done")
        report.table(rows, "The same command in the same directory tries these again.")


def _notes(config: FrontiersConfig, name: str, part: Part) -> dict[str, str]:
    """What pointing at each run tells."""
    cost, quality = (_label(config, name, part, side) for side in ("cost", "quality"))
    told = {}
    for point in part.curve.known:
        lines = [part.budgets.get(point.name, point.name)]
        lines += [f"{cost}: {format_number(point.cost)}"]
        lines += [f"{quality}: {format_number(point.quality)}"]
        if point.share is not None and point.kept is not None:
            lines += [f"{100 * point.share:.1f} % of the cost, {100 * point.kept:.1f} % kept"]
        told[point.name] = "\n".join(lines)
    return told


def _links(part: Part, runs: Path, home: Path) -> dict[str, str]:
    """Names of the runs to their budgets, which link to their pages, or to their directories."""
    links = {}
    for name, budget in part.budgets.items():
        folder = runs / part.folders[name]
        found = [path for path in (folder / REPORT, folder) if path.exists()]
        links[name] = f"[{budget}]({link(found[0], home)})" if found else budget
    return links


def _label(config: FrontiersConfig, name: str, part: Part, side: str) -> str:
    return getattr(config.wanted[name], f"{side}_label") or getattr(part, side)


def _spent(config: FrontiersConfig, name: str, part: Part) -> str:
    """What a part's share of the cost is a share of: of a rate the time, else without the unit."""
    label = _label(config, name, part, "cost")
    if part.curve.reference is None:
        return label
    return f"1 / ({label})" if part.more[0] else re.sub(r" \(.*\)$", "", label)


def _plain(value: float | None) -> str | None:
    """A number of its own column's scale: rows are of different families."""
    return None if value is None else format_number(value)
