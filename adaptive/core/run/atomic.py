"""Writing files so that a reader sees the old content or the new, never half of it.

Everything goes to a temporary name in the same directory, is flushed to the disk and renamed over
the target, which POSIX does in one step. A process killed in between leaves at most a temporary
name that starts with ``.tmp-``; :func:`sweep_temporaries` removes those.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that becomes ``path`` when the block ends well.

    The block may create a file or a directory there (a checkpoint of several files); the name ends
    like the target's, so that writers which look at the suffix are content. When the block raises,
    the temporary is removed and the target is as before.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
    remove(temporary)
    try:
        yield temporary
        sync(temporary)
        if target.is_dir():  # os.replace puts a directory only over an empty one
            shutil.rmtree(target)
        os.replace(temporary, target)
    except BaseException:
        remove(temporary)
        raise
    sync_directory(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes ``content`` to ``path`` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: str | os.PathLike[str], content: str) -> None:
    """Writes ``content`` to ``path`` as UTF-8 in one step."""
    atomic_write_bytes(path, content.encode())


def atomic_write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes :func:`to_plain` of ``value`` as indented, strict JSON in one step."""
    text = json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def to_plain(value: Any) -> Any:
    """``value`` in the types that JSON and YAML share: dict, list, str, int, float, bool, None.

    Dataclasses become dicts, enums their names, paths strings, NumPy and torch scalars numbers,
    and floats that JSON cannot say (nan, inf) the strings that ``float`` reads back.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy and torch, neither of which is imported here
        return to_plain(value.tolist())
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted names; empty ones stay."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def sync(path: Path) -> None:
    """Asks the system to put a file, or all files below a directory, on the disk."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Puts a directory's entries on the disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file or a directory tree that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_temporaries(directory: Path) -> None:
    """Removes what killed writers left below ``directory``."""
    for leftover in list(directory.rglob(f"{TEMPORARY}*")):
        remove(leftover)
