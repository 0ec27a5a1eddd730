"""What becomes of a run that fails: a status that says so and an error that helps."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.run.directory import RunDir, read_status
from adaptive.core.run.lock import holder


@contextlib.contextmanager
def failures_recorded(run: RunDir) -> Iterator[None]:
    """Turns ``status.json`` to ``failed`` when the block raises, and lets the error pass.

    Raises:
        UserError: in place of an error that says that the disk is full.
    """
    try:
        with full_disk_told(run.path):
            yield
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first problem is the one to tell
            run.status("failed", run.stage(), explain(error))
        raise


@contextlib.contextmanager
def full_disk_told(directory: Path) -> Iterator[None]:
    """Raises ``UserError`` in place of an error that says that the disk is full."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise UserError(
            f"the disk that holds {directory} is full: free some space and run the same command "
            "again in this directory, finished stages are kept"
        ) from error


def note_failure(directory: Path, why: str) -> None:
    """Turns the ``status.json`` of a run that could not begin to ``failed``.

    One that somebody is at, or that is done, stays so: it is of another experiment, or somebody
    else has finished it.
    """
    if holder(directory) is None and read_status(directory)["state"] != "done":
        run = RunDir(directory)
        run.status("failed", run.stage(), why)


def explain(error: BaseException) -> str:
    """The words for ``status.json``."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: the same command in the same directory resumes"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it stems from, says that the disk or the quota is full.

    Libraries that write from Rust or C++ (safetensors, torch) raise types of their own and leave
    only the system's words.
    """
    while True:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause
