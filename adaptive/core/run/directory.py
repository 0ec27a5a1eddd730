"""The run directory: the files that a run leaves behind, and who may write them when."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from adaptive._version import __version__
from adaptive.core.errors import UserError
from adaptive.core.run.atomic import (
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    sweep_temporaries,
    to_plain,
)
from adaptive.core.run.environment import environment, peak_memory
from adaptive.core.run.lock import locked
from adaptive.core.run.metrics import MetricsLog
from adaptive.core.run.task import TaskConfig
from adaptive.core.run.tracking import Tracking

REPORT = "report.html"


class DoneBeforeError(Exception):
    """The very run that was to begin has ended well."""


@dataclass(frozen=True)
class RunDir:
    """Paths and writers of one run.

    ``config.yaml`` and ``run.json`` are written at the start, ``status.json`` is kept current,
    ``metrics.jsonl`` grows, ``summary.json`` and ``report.html`` exist once the run is done, and
    ``artifacts/`` holds one directory a stage.

    Attributes:
        path: the directory; created with its parents.
        tracking: where else it is shown, while it is open.
    """

    path: Path
    tracking: Tracking = field(default_factory=Tracking, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        self.artifacts.mkdir(parents=True, exist_ok=True)

    @property
    def artifacts(self) -> Path:
        """Parent of the stages' directories."""
        return self.path / "artifacts"

    @property
    def metrics(self) -> MetricsLog:
        """The log of steps."""
        return MetricsLog(self.path / "metrics.jsonl", self.tracking)

    @contextlib.contextmanager
    def opened(
        self,
        config: TaskConfig,
        command: str,
        overrides: Sequence[str] = (),
        unless_done: bool = False,
    ) -> Iterator[None]:
        """Holds the directory for a run of ``config``, and writes what is known at its start.

        Raises:
            DoneBeforeError: it is done, and ``unless_done`` is set.
            UserError: another process is in the directory, or it holds another experiment.
        """
        with locked(self.path):
            if unless_done and is_done(self.path, config):
                raise DoneBeforeError
            self.refuse_other_experiment(config)
            sweep_temporaries(self.path)
            plain = to_plain(config)
            text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
            atomic_write_text(self.path / "config.yaml", text)
            with self._recorded(config, command, overrides), self._tracked(config):
                yield

    def status(self, state: str, stage: str | None = None, error: str | None = None) -> None:
        """Writes ``status.json``; ``state`` is ``running``, ``done`` or ``failed``."""
        path = self.path / "status.json"
        status = {"state": state, "stage": stage, "error": error}
        try:
            atomic_write_json(path, status)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
                raise
            # The disk is full and the status must still become "failed": the file has a block
            # already, and a few bytes written over it need no new one.
            with path.open("r+") as stream:
                stream.write(json.dumps(status) + "\n")
                stream.truncate()

    def stage(self) -> str | None:
        """The stage that ``status.json`` names."""
        return read_status(self.path)["stage"]

    def publish(self, summary: dict[str, Any], report: Path | None) -> None:
        """Writes ``summary.json`` and copies the report to where tools look for it."""
        if report is not None:
            atomic_write_bytes(self.path / REPORT, report.read_bytes())
        atomic_write_json(self.path / "summary.json", summary)
        self.tracking.summary(summary)

    def unpublish(self) -> None:
        """Removes the results of an earlier configuration before they become wrong."""
        for name in ("summary.json", REPORT):
            (self.path / name).unlink(missing_ok=True)

    def refuse_other_experiment(self, config: TaskConfig) -> None:
        """Raises UserError where the directory holds something else than a run of ``config``."""
        path = self.path / "config.yaml"
        if not path.exists():
            return
        try:
            found = yaml.safe_load(path.read_text())
            name, task = found["name"], found["task"]
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
            raise UserError(
                f"{path} is not of a run: choose another hydra.run.dir, as this would overwrite it"
            ) from None
        if (name, task) != (config.name, config.task):
            raise UserError(
                f"{self.path} holds a run of {name!r} (task {task}), not of {config.name!r} "
                f"(task {config.task}): choose another hydra.run.dir"
            )

    @contextlib.contextmanager
    def _tracked(self, config: TaskConfig) -> Iterator[None]:
        """Shows the run in the trackers that the configuration names."""
        object.__setattr__(self, "tracking", Tracking.start(self.path, config))
        failed = True
        try:
            yield
            failed = False
        finally:
            self.tracking.close(failed)

    @contextlib.contextmanager
    def _recorded(
        self, config: TaskConfig, command: str, overrides: Sequence[str]
    ) -> Iterator[None]:
        """Keeps ``run.json``; a resumed run adds its time to that of the attempts before."""
        path = self.path / "run.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        start = time.perf_counter()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record: dict[str, Any] = {
            "name": config.name,
            "task": config.task,
            "command": command,
            "overrides": list(overrides),
            "version": __version__,
            "directory": os.fspath(self.path.resolve()),
            "seed": config.seed,
            "started": before.get("started", now),
            "attempts": before.get("attempts", 0) + 1,
            "wall_seconds": before.get("wall_seconds", 0.0),
            "peak_memory": before.get("peak_memory", {}),
        } | environment(config.device)
        atomic_write_json(path, record)
        try:
            yield
        finally:
            record["wall_seconds"] += time.perf_counter() - start
            peak = record["peak_memory"]
            record["peak_memory"] = peak | {
                kind: max(size, peak.get(kind, 0)) for kind, size in peak_memory().items()
            }
            with contextlib.suppress(OSError):  # what failed in the run matters more
                atomic_write_json(path, record)


def read_status(directory: Path) -> dict[str, str | None]:
    """``state``, ``stage`` and ``error`` of a run; each None where there is none that says."""
    nothing = dict.fromkeys(("state", "stage", "error"))
    try:
        found = json.loads((directory / "status.json").read_text())
    except (OSError, ValueError):
        return nothing
    return {**nothing, **found} if isinstance(found, dict) else nothing


def read_config(directory: Path) -> dict[str, Any] | None:
    """The configuration of a run in plain types; None where there is none to read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is built
    try:
        found = yaml.load((directory / "config.yaml").read_text(), Loader=loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def made_on(directory: Path) -> str | None:
    """Model of the device that a run has had, as its ``run.json`` tells; None where none does."""
    try:
        return json.loads((directory / "run.json").read_text())["device"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_done(directory: Path, config: TaskConfig) -> bool:
    """Whether a run of this very configuration, by this version, has ended well in ``directory``.

    Reads three small files and imports nothing heavy. Files outside the run are not looked at: the
    same command without ``-m`` goes through the stages, which do.
    """
    if read_status(directory)["state"] != "done" or not (directory / "summary.json").exists():
        return False
    try:
        record = json.loads((directory / "run.json").read_text())
    except (OSError, ValueError):
        return False
    return record.get("version") == __version__ and read_config(directory) == to_plain(config)
