"""Result files that several starts of a script fill, one measurement after another."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from adaptive.core import UserError
from adaptive.core.run import environment


def started(path: Path, command: str, device: str, commit: str | None, part: str) -> dict[str, Any]:
    """The record of an earlier start, or a new one.

    Args:
        path: of the record.
        command: that measures it, as the record shall say.
        device: on which, as in ``TaskConfig.device``.
        commit: what is measured; None: the checkout's.
        part: name of the (empty) table that is to be filled.

    Raises:
        UserError: an earlier start was of another command or device, or it cannot be read.
    """
    about = environment(device=device)
    if path.is_file():
        record = read(path)
        if record["command"] != command:
            raise UserError(f"{path} is of `{record['command']}`: move it away, or write elsewhere")
        if record["environment"].get("device") != about.get("device"):
            raise UserError(f"{path} is of another device: move it away, or write elsewhere")
        return record
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(about, commit),
        "environment": about,
        part: {},
    }


def commit_of(about: dict[str, Any], stated: str | None = None) -> str | None:
    """The commit that was stated, or that of a run's or a process's environment."""
    return stated or (about.get("git") or {}).get("commit")


def read(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        UserError: there is none, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): measure it first") from None
