"""The runs below a directory, read from the files that each leaves behind."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.run.atomic import flat
from adaptive.core.run.directory import read_config, read_status
from adaptive.core.run.lock import holder
from adaptive.core.run.manifest import digest

OF_A_RUN = ("config.yaml", "status.json")
TASK = "collect"
NOT_SETTINGS = ("name", "task")


@dataclass(frozen=True)
class Run:
    """A run as its directory tells it.

    Attributes:
        path: the directory.
        state: ``done``, ``failed``, ``running``, or ``unfinished``: begun, and nobody is at it.
        stage: where it is, or failed.
        error: why it failed.
        settings: dotted names to values; empty where it never began.
        summary: its result; empty where it has none.
        record: ``run.json``.
    """

    path: Path
    state: str
    stage: str | None = None
    error: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str | None:
        """Name of its experiment; None where it never began."""
        return self.settings.get("name")

    @property
    def changed(self) -> list[str]:
        """The settings that its overrides changed; a group's name stands for all below it."""
        overrides = self.record.get("overrides", ())
        return [str(o).partition("=")[0].lstrip("+~") for o in overrides]

    @property
    def made_with(self) -> dict[str, str | None]:
        """Model of its device, and version of this package; None for what it does not tell."""
        device = self.record.get("device")
        name = device.get("name") if isinstance(device, Mapping) else None
        return {"device": name, "version": self.record.get("version")}

    @classmethod
    def read(cls, path: Path) -> Run:
        """The run in ``path``."""
        status = read_status(path)
        summary, record = _json(path / "summary.json"), _json(path / "run.json")
        state = status["state"] or "unfinished"
        if state == "done" and not summary and not (path / "summary.json").exists():
            state = "unfinished"
        elif state in ("running", "unfinished"):
            state = "unfinished" if holder(path) is None else "running"
        settings = flat(read_config(path) or {})
        return cls(path, state, status["stage"], status["error"], settings, summary, record)


@dataclass(frozen=True)
class Collected:
    """Runs that can be compared, and those that cannot.

    Attributes:
        recipe: name of their experiment.
        task: its task.
        runs: of one recipe and one configuration, but for the settings that overrides change; and
            those that failed before they had a configuration.
        settings: names of those that differ between the runs.
        strangers: runs of the recipe with another configuration, device or version, and what
            differs.
        others: names of other recipes to how many runs of theirs are left out.
    """

    recipe: str
    task: str
    runs: list[Run]
    settings: list[str]
    strangers: dict[Path, str]
    others: dict[str, int]

    def of(self, *states: str) -> list[Run]:
        """The runs in these states."""
        return [run for run in self.runs if run.state in states]


def gather(directory: Path, recipe: str | None = None) -> Collected:
    """All runs of one recipe below ``directory``.

    Args:
        directory: is searched, runs of the task ``collect`` and what lies within a run aside.
        recipe: name of the experiment; None for the only one.

    Raises:
        UserError: there are no runs, none of the recipe, or several recipes and none is named.
    """
    if not directory.is_dir():
        raise UserError(f"runs={directory} is no directory: name one that holds runs")
    found = [run for run in map(Run.read, _below(directory)) if run.settings.get("task") != TASK]
    counts = Counter(run.recipe for run in found if run.recipe is not None)
    words = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    if not found or not counts:
        failed = f", and {len(found)} that never began" if found else ""
        raise UserError(f"runs={directory} holds no runs{failed}: name a directory that does")
    if recipe is None and len(counts) > 1:
        raise UserError(
            f"runs={directory} holds runs of several recipes, which have nothing to compare: "
            f"{words}; name one with recipe=NAME, or a directory of its own"
        )
    name = next(iter(counts)) if recipe is None else recipe
    if name not in counts:
        raise UserError(f"recipe={name}: runs={directory} holds none of it, but of {words}")
    mine = [run for run in found if run.recipe == name]
    alike, strangers = _alike(mine)
    nameless = [run for run in found if run.recipe is None]
    varied = _varied(alike)
    return Collected(
        name,
        alike[0].settings["task"],
        sorted([*alike, *nameless], key=_in_order),
        [key for key in varied if len({digest(run.settings.get(key)) for run in alike}) > 1],
        strangers,
        {str(other): count for other, count in counts.items() if other != name},
    )


def _below(directory: Path) -> Iterator[Path]:
    for home, folders, files in os.walk(directory):
        if any(name in files for name in OF_A_RUN):
            folders.clear()  # what lies in a run is its own
            yield Path(home)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _varied(runs: Sequence[Run]) -> list[str]:
    """Settings that an override of some run changes, in the order of the configuration."""
    changed = {key for run in runs for key in run.changed}
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in NOT_SETTINGS)
    return [key for key in keys if any(key == one or key.startswith(f"{one}.") for one in changed)]


def _alike(runs: Sequence[Run]) -> tuple[list[Run], dict[Path, str]]:
    """The largest, then newest, set of runs that agree in all that no override changes; and how
    each other run differs from it."""
    varied = set(_varied(runs))

    def base(run: Run) -> dict[str, Any]:
        return {key: value for key, value in run.settings.items() if key not in varied}

    sets: dict[str, list[Run]] = {}
    for run in runs:
        sets.setdefault(digest(base(run)), []).append(run)
    alike = max(
        sets.values(), key=lambda some: (len(some), max(r.record.get("started", "") for r in some))
    )
    ours, known = base(alike[0]), {run.path for run in alike}
    strangers = {}
    for run in runs:
        if run.path in known:
            continue
        theirs = base(run)
        keys = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
        more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
        key = keys[0]
        strangers[run.path] = f"{key}={theirs.get(key)}, others {ours.get(key)}{more}"
    elsewhere = _elsewhere(alike)
    return [run for run in alike if run.path not in elsewhere], strangers | elsewhere


def _elsewhere(runs: Sequence[Run]) -> dict[Path, str]:
    """The finished runs of another device or version than most, whose times compare with nothing,
    and how they differ. A run that does not tell compares with all."""
    done = [run for run in runs if run.state == "done"]
    found: dict[Path, str] = {}
    for kind in ("device", "version"):
        newest: dict[str | None, str] = {}
        for run in done:
            started = run.record.get("started", "")
            newest[run.made_with[kind]] = max(started, newest.get(run.made_with[kind], ""))
        counts = Counter(name for run in done if (name := run.made_with[kind]) is not None)
        if len(counts) < 2:
            continue
        ours = max(counts, key=lambda name: (counts[name], newest[name]))
        for run in done:
            if (theirs := run.made_with[kind]) not in (None, ours):
                found.setdefault(run.path, f"{kind}={theirs}, others {ours}")
        done = [run for run in done if run.path not in found]
    return found


def _in_order(run: Run) -> list[tuple[float, str]]:
    """Numbers in a name count as numbers: 9 comes before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(run.path))
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
