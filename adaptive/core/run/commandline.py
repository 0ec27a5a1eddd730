"""What the command line adds to running an experiment: words, exit codes, no debris."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.run.directory import RunDir
from adaptive.core.run.messages import reworded
from adaptive.core.run.progress import say

FAILED = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class _Mistake(BaseException):
    """Carries a ``UserError`` past Hydra, which reports and rewraps every ``Exception``."""

    def __init__(self, error: UserError):
        super().__init__(error)
        self.error = error


@contextlib.contextmanager
def told(arguments: Sequence[str]) -> Iterator[None]:
    """Ends the process with one sentence on stderr for a mistake of the user.

    The full traceback comes with ``hydra.verbose=true`` or ``HYDRA_FULL_ERROR=1``.
    """
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1" or any(
        re.match(r"\+*hydra\.verbose=(?!false|null)", argument) for argument in arguments
    )
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises, rather than printing and exiting itself
    try:
        with reworded(arguments):
            yield
    except (UserError, _Mistake) as problem:
        error = problem.error if isinstance(problem, _Mistake) else problem
        if verbose:
            raise error from error.__cause__
        say(f"error: {error}")
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


@contextlib.contextmanager
def job(directory: Path, command: str, arguments: Sequence[str], *, sweep: bool) -> Iterator[None]:
    """Surrounds one run of the command line.

    Args:
        directory: the run directory, which Hydra has made.
        command: the whole command, for the hint on how to resume.
        arguments: of the command line.
        sweep: whether there are other jobs. Those go on when this one fails, and Hydra shows only
            the first error in the end, so each failure is told and recorded where it happens.
    """
    try:
        with reworded(arguments):
            yield
    except UserError as error:
        if not sweep:
            with contextlib.suppress(OSError):  # takes back the directories of a run not begun,
                os.removedirs(directory)  # and fails where there is something to keep
            raise _Mistake(error) from error
        say(f"error in {directory}: {error}")
        if not any(directory.iterdir()):
            RunDir(directory).status("failed", None, str(error))
        raise
    except KeyboardInterrupt:
        if not sweep and "hydra.run.dir=" not in command:
            command += f" hydra.run.dir={directory}"
        say(f"\ninterrupted, nothing is lost; to resume: {command}")
        raise
