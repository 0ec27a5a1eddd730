"""A run as a process: its command, its log, its end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive.core.run.commandline import INTERRUPTED
from adaptive.core.run.directory import read_status

LOG = "job.log"
PARENT = "ADAPTIVE_PARENT"
"""Environment variable: the process with which a run that it started shall end."""

STOPPED = (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGUSR2)
"""Exit statuses of a run that somebody has stopped."""

STOP_SECONDS = 60.0
ATTEMPT = "=== attempt of "
"""Begins the first line of an attempt in the log."""


@dataclass
class Job:
    """One run of a sweep, to be started anywhere that sees the same files.

    Attributes:
        directory: of the run.
        command: runs it.
        cwd: where the command is to be run.
    """

    directory: str
    command: tuple[str, ...]
    cwd: str = field(default_factory=os.getcwd)
    _process: subprocess.Popen[bytes] | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> Path:
        """Of the run directory."""
        return Path(self.cwd, self.directory)

    def run(self, env: Mapping[str, str] | None = None) -> int:
        """Runs the command, which adds what it prints to ``job.log``; returns its exit status."""
        self.path.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, **(env or {}), PARENT: str(os.getpid())}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with (self.path / LOG).open("ab", buffering=0) as log:
            log.write(f"{ATTEMPT}{now} {shlex.join(self.command)}\n".encode())
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        # Another thread waits: a signal's handler in this one may want to stop the run, and would
        # find the lock of a process that its own thread waits for.
        waiter = threading.Thread(target=self._process.wait, daemon=True)
        waiter.start()
        while waiter.is_alive():
            waiter.join(1.0)
        return self._process.returncode

    def stop(self) -> None:
        """Interrupts the run, as Ctrl-C does, and returns when it has ended."""
        stop_all([self])

    def _terminate(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def _end(self, seconds: float) -> None:
        """Returns when the run has ended, and sees to it that it does within so many seconds."""
        process = self._process
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def note(self, line: str) -> None:
        """Adds a line to the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOG).open("a") as log:
            log.write(line + "\n")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}  # a process stays where it is

    def why(self, status: int) -> str:
        """Why the run has ended with this exit status, other than 0."""
        lines = self._last_attempt()
        if status < 0:
            name = signal.Signals(-status).name
            memory = ", as the system does when memory is short" if name == "SIGKILL" else ""
            return f"killed by {name}{memory}; see {self.directory}/{LOG}"
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if errors:
            return errors[-1]
        told = read_status(self.path)
        if told["state"] == "failed" and told["error"]:
            return told["error"]
        return f"ended with exit status {status}" + (f": {lines[-1]}" if lines else "")

    def _last_attempt(self) -> list[str]:
        try:
            with (self.path / LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 20_000))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        _, head, attempt = text.rpartition(ATTEMPT)
        lines = attempt.splitlines()[1 if head else 0 :]
        return [line for line in lines if line.strip()]


def stop_all(jobs: Iterable[Job]) -> None:
    """Interrupts runs, all at once, and returns when all have ended."""
    jobs = list(jobs)
    for job in jobs:
        job._terminate()
    end = time.monotonic() + STOP_SECONDS
    for job in jobs:
        job._end(max(0.0, end - time.monotonic()))


def this_program() -> tuple[str, ...]:
    """What Python was started with: ``-m MODULE``, or a script."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return ("-m", spec.name) if spec is not None else (os.path.abspath(str(main.__file__)),)


def command(program: Sequence[str], arguments: Sequence[str], processes: int) -> tuple[str, ...]:
    """The command of one run, which torchrun starts where it is several processes."""
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    return (sys.executable, *(several if processes > 1 else ()), *program, *arguments)


def end_with_parent() -> None:
    """Has this process interrupted when the launcher that started it dies, however that happens.

    Does nothing where no launcher has started it, and where the system (not Linux) cannot.
    """
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux" or os.getppid() != int(parent):
        return
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died while we asked
        os.kill(os.getpid(), signal.SIGTERM)
