"""One process at a time in a run directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from adaptive.core.errors import UserError


class InUseError(UserError):
    """Another process that is alive uses the run directory."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds ``directory`` for this process.

    The lock is the kernel's (``flock`` on ``.lock``), so it ends with its process however that
    dies, SIGKILL included, and there are no stale locks to clean up. The file's text only says who
    holds it.

    Raises:
        InUseError: another process that is alive uses the directory.
    """
    file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.2)  # it may have been one who only asks, see holder
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"{directory} is in use by {_holder(file)}: wait for it, or choose another "
                "hydra.run.dir"
            ) from None
        except OSError as error:  # a file system without locks: go on, as there is no way to know
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        with contextlib.suppress(OSError):  # a full disk is reported by the run's own files
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)


def holder(directory: Path) -> str | None:
    """Who holds ``directory``, such as ``process 7 on node3``; None when nobody does."""
    try:
        file = os.open(directory / ".lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(file)
    except OSError:  # no locks here
        return None
    finally:
        os.close(file)
    return None


def wait_until_free(directory: Path, every: float = 0.5) -> None:
    """Returns once no process holds ``directory``."""
    while holder(directory) is not None:
        time.sleep(every)


def _holder(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
