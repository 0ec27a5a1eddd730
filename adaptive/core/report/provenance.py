"""The end of every page: the command, what it ran on, and with which settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adaptive.core.resource import format_quantity
from adaptive.core.run.atomic import to_plain
from adaptive.core.run.manifest import Manifest
from adaptive.core.run.progress import duration

if TYPE_CHECKING:
    from adaptive.core.report.page import Report

TITLE = "How this was made"


def provenance(page: Report, config: Any, run: Path) -> Report:
    """Adds command, environment, stages and configuration; see ``Report.provenance``."""
    file = run / "run.json"
    about: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    page.section(TITLE)
    if about.get("command"):
        page.command(about["command"])
    if about:
        page.facts({name: text for name, text in environment_facts(about).items() if text})
    stages = stage_rows(run)
    if stages:
        page.table(stages, "What took how long; a stage that was kept is of an earlier start.")
    plain = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    page.code("Configuration: config.yaml", plain)
    if about.get("packages"):
        versions = "\n".join(f"{name} {number}" for name, number in about["packages"].items())
        page.code("Packages", versions)
    return page


def environment_facts(about: dict[str, Any]) -> dict[str, str]:
    """Names and texts of what ``run.json`` knows about a run; "" for what it does not."""
    git, device, packages = about.get("git"), about.get("device", {}), about.get("packages", {})
    commit = "" if not git else f"`{git['commit'][:12]}`" + (" with changes" * git["dirty"])
    kind = device.get("name", "")
    if device.get("bytes"):
        kind += f", {format_quantity(device['bytes'], 'memory')}, CUDA {device['cuda']}"
    elif device.get("threads"):
        kind += f", {device['threads']} threads"
    named = ("adaptive-compute", "torch")
    versions = [f"Python {about.get('python', '')}"]
    versions += [f"{name} {packages[name]}" for name in named if name in packages]
    return {
        "started": about.get("started", "").replace("T", " ").replace("+00:00", " UTC"),
        "commit": commit,
        "device": kind,
        "system": about.get("platform", ""),
        "versions": ", ".join(versions),
        "seed": str(about.get("seed", "")),
        "starts": str(about["attempts"]) if about.get("attempts", 1) > 1 else "",
    }


def stage_rows(run: Path) -> list[dict[str, Any]]:
    """Time and GPU memory of the stages that are done, in the order in which they ended."""
    done = []
    for file in (run / "artifacts").glob("*/manifest.json"):
        manifest = Manifest.read(file.parent)
        if manifest is not None and manifest.done:
            done.append((file.stat().st_mtime, manifest))
    rows = []
    for _, one in sorted(done, key=lambda item: item[0]):
        row = {"stage": one.stage, "time": duration(one.seconds)}
        if one.gpu_bytes:
            row["GPU memory"] = format_quantity(one.gpu_bytes, "memory")
        rows.append(row)
    return rows
