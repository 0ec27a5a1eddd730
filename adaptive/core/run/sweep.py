"""A sweep: many runs of one command, each in its own directory, and what became of them.

A run that is done is not begun again, one that was cut short resumes, one that fails says why and
lets the others go on. Several launches of one sweep share its runs: whoever holds a directory runs
it, the others come back to it in the end.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.run.atomic import flat, to_plain
from adaptive.core.run.directory import DoneBeforeError, is_done
from adaptive.core.run.experiment import Experiment
from adaptive.core.run.failure import explain, note_failure
from adaptive.core.run.lock import InUseError, holder, wait_until_free
from adaptive.core.run.messages import reworded
from adaptive.core.run.progress import duration, say
from adaptive.core.run.task import TaskConfig

DONE, KEPT, FAILED = "done", "done before", "failed"


class SharedDirectoryError(UserError):
    """Two different runs of one sweep have the same directory."""


@dataclass
class Sweep:
    """The runs of one launch.

    Attributes:
        command: the whole command, for the hint on how to resume.
        arguments: of the command line.
        outcomes: directory of each run that has ended to ``done``, ``done before`` or ``failed``.
        errors: directory of each failed run to why.
        refused: why runs without a directory of their own were not begun.
        expected: how many runs there are, once that is known.
    """

    command: str = ""
    arguments: Sequence[str] = ()
    outcomes: dict[Path, str] = field(default_factory=dict)
    errors: dict[Path, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    expected: int | None = None
    _postponed: dict[Path, Callable[[], Experiment]] = field(default_factory=dict)
    _configs: dict[Path, TaskConfig] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def begin(self, command: str, arguments: Sequence[str]) -> None:
        """Forgets an earlier launch in this process."""
        self.command, self.arguments, self.expected = command, arguments, None
        for noted in (self.outcomes, self.errors, self.refused, self._postponed, self._configs):
            noted.clear()
        self._began = time.monotonic()

    def run(self, directory: Path, composed: Callable[[], Experiment]) -> None:
        """Runs one experiment in this process, unless it is done or another process is at it."""
        try:
            experiment = self.wanted(directory, composed)
            if experiment is not None:
                experiment.run(directory, unless_done=True)
                self.ended(directory, DONE)
        except DoneBeforeError:  # by another launch, since we looked
            self.ended(directory, KEPT)
        except InUseError as error:
            say(f"{error.args[0].partition(':')[0]}, which goes first")
            self._postponed[directory] = composed
        except KeyboardInterrupt:
            self.interrupted()
            raise
        except SharedDirectoryError as error:
            self.refused.append(str(error))
            say(f"error: {error}")  # the directory is the other's, and so is its status.json
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            self.failed(directory, explain(error))

    def wanted(self, directory: Path, composed: Callable[[], Experiment]) -> Experiment | None:
        """The experiment of ``directory``; None, and noted, where it is done or cannot be.

        Args:
            directory: where it runs.
            composed: makes it, and raises ``UserError`` for a mistake in its settings.

        Raises:
            SharedDirectoryError: another run of this sweep has the directory.
        """
        try:
            with reworded(self.arguments):
                experiment = composed()
        except UserError as error:
            self.failed(directory, str(error))
            return None
        self._claim(directory, experiment.config)
        if not is_done(directory, experiment.config):
            return experiment
        self.ended(directory, KEPT)
        return None

    def _claim(self, directory: Path, config: TaskConfig) -> None:
        first = self._configs.setdefault(directory, config)
        if first == config:
            return
        ours, theirs = flat(to_plain(first)), flat(to_plain(config))
        keys = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
        one, other = (",".join(f"{k}={v.get(k)}" for k in keys[:3]) for v in (ours, theirs))
        raise SharedDirectoryError(
            f"two runs of this sweep have the directory {directory}, that of {one} and that of "
            f"{other}: leave hydra.sweep.subdir out, or let it name what differs"
        )

    def ended(self, directory: Path, outcome: str) -> None:
        """Notes that a run is done."""
        self.outcomes[directory] = outcome
        say(f"{self._count()}{directory}: {outcome}")

    def failed(self, directory: Path, why: str) -> None:
        """Notes that a run has failed, also in its ``status.json``."""
        self.outcomes[directory] = FAILED
        self.errors[directory] = why
        say(f"{self._count()}error in {directory}: {why}")
        note_failure(directory, why)

    def interrupted(self) -> None:
        """Says how to go on."""
        say(f"\ninterrupted, nothing is lost; to resume: {self.command}")

    def finish(self) -> bool:
        """Runs what others were at, says what became of all runs; True if all are done."""
        while self._postponed:
            directory = next(iter(self._postponed))
            composed = self._postponed.pop(directory)
            self.wait_for(directory)
            self.run(directory, composed)
        if not self.outcomes:
            return True
        counts = {kind: list(self.outcomes.values()).count(kind) for kind in (DONE, KEPT, FAILED)}
        words = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        say(f"\n{len(self.outcomes)} runs in {duration(time.monotonic() - self._began)}: {words}")
        for directory, why in self.errors.items():
            say(f"  failed: {directory}: {why}")
        for why in self.refused:
            say(f"  not begun: {why}")
        if self.errors:
            say(f"to run what failed again: {self.command}")
        for home in sorted({str(path.parent) for path in self.outcomes}):
            where = shlex.quote(f"runs={hydra_value(home)}")
            say(f"to collect them: python -m adaptive.run +exp=collect {where}")
        return not self.errors and not self.refused

    def wait_for(self, directory: Path) -> None:
        """Returns once nobody else runs ``directory``."""
        try:
            if owner := holder(directory):
                say(f"waiting for {owner}, which runs {directory}")
                wait_until_free(directory)
        except KeyboardInterrupt:
            self.interrupted()
            raise

    def _count(self) -> str:
        return f"[{len(self.outcomes)}/{self.expected}] " if self.expected else ""


def hydra_value(text: str) -> str:
    """``text`` as Hydra's grammar takes it for one value: quoted where it has to be."""
    if "/" in text and re.fullmatch(r"[\w./-]+", text, re.ASCII):  # neither null nor a number
        return text
    # Within quotes only the quote is escaped, and backslashes where they stand before one.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), text)
    return f"'{escaped}'"


def label_of(overrides: Iterable[str]) -> str:
    """The name of a directory that is told from others by these overrides, in whatever order.

    What a file system or a shell may not like is replaced, and a hash keeps shortened names apart.
    """
    text = ",".join(sorted(overrides))
    label = re.sub(r"[^\w.=,+-]", "_", text)
    if label != text or len(label) > 120:
        label = f"{label[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return label or "defaults"


SWEEP = Sweep()
"""Of this process, whose command line begins it anew."""
