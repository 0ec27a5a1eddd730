"""The manifest of a finished stage: what it was made from, what it made, what it found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptive._version import __version__
from adaptive.core.run.atomic import TEMPORARY, atomic_write_json, to_plain
from adaptive.core.run.task import TaskConfig

MANIFEST = "manifest.json"


def digest(value: Any) -> str:
    """SHA-256 of ``value`` written as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(stage: str, depends_on: Any, seed: int, inputs: Mapping[str, str]) -> str:
    """Identifies what a stage's result depends on; equal fingerprints mean the work is done.

    Args:
        stage: name of the stage.
        depends_on: the part of the configuration that matters to it.
        seed: the run's seed.
        inputs: name of each stage that it reads to the ``result`` of that stage's manifest.
    """
    return digest([__version__, stage, _untracked(depends_on), seed, dict(inputs)])


def _untracked(value: Any) -> Any:
    """Without the setting that changes no result: where else a run is shown."""
    if isinstance(value, TaskConfig):
        return {name: item for name, item in to_plain(value).items() if name != "tracking"}
    if isinstance(value, (list, tuple)):
        return [_untracked(item) for item in value]
    return value


def file_marks(paths: Iterable[Path]) -> list[list[Any]]:
    """Path, size and time of change of files that a stage depends on, in order.

    What a setting names by path may be other content the next time. A file that is not there is
    marked as such: it is the stage's to say so.
    """
    marks = []
    for path in sorted(paths):
        about = path.stat() if path.is_file() else None
        marks.append([str(path), *((about.st_size, about.st_mtime_ns) if about else ())])
    return marks


def file_table(directory: Path) -> dict[str, dict[str, Any]]:
    """Relative path to ``{"bytes", "sha256"}`` of every file below ``directory``, sorted."""
    paths = [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(TEMPORARY)
    ]
    # One thread hashes a gigabyte a second, and the library of an 8B parent has forty.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(_sha256, paths))
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256}
        for path, sha256 in zip(paths, hashes, strict=True)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass
class Manifest:
    """What ``manifest.json`` in a stage's directory holds.

    Attributes:
        stage: name of the stage.
        fingerprint: see :func:`fingerprint`.
        inputs: name of each stage read, to that stage's ``result``.
        done: False while the stage runs.
        files: see :func:`file_table`.
        summary: flat dotted names to numbers or strings, the stage's part of ``summary.json``.
        seconds: wall time of the attempt that finished it.
        gpu_bytes: most that this process had allocated on its GPU; 0 without one.
        again: why it runs again with the next launch, though it is done; "" where it does not.
    """

    stage: str
    fingerprint: str
    inputs: dict[str, str]
    done: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    gpu_bytes: int = 0
    again: str = ""

    @property
    def result(self) -> str:
        """Identifies what the stage made: stages that read it run again when this changes."""
        return digest([self.fingerprint, self.files])

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest in ``directory``; None where there is none that can be read."""
        try:
            return cls(**json.loads((directory / MANIFEST).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Writes ``manifest.json`` in one step."""
        atomic_write_json(directory / MANIFEST, self)

    def damage(self, directory: Path) -> str:
        """Says which file is missing or has another size; empty when all are there.

        Sizes, not hashes: resuming must not read a library of hundreds of gigabytes.
        """
        for name, entry in self.files.items():
            path = directory / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != entry["bytes"]:
                return f"{path} has changed"
        return ""
