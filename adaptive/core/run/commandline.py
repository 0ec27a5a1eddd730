"""What the command line adds to running an experiment: words, exit codes, no debris."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.run.lock import InUseError
from adaptive.core.run.messages import reworded
from adaptive.core.run.progress import say

FAILED = 1
IN_USE = 75  # EX_TEMPFAIL of <sysexits.h>: another process is at it, try again
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
        sys.exit(IN_USE if isinstance(error, InUseError) else FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


@contextlib.contextmanager
def single(directory: Path, command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Surrounds the only run of a command line; :mod:`adaptive.core.run.sweep` is of several.

    Args:
        directory: the run directory, which Hydra has made.
        command: the whole command, for the hint on how to resume.
        arguments: of the command line.
    """
    try:
        with reworded(arguments):
            yield
    except UserError as error:
        with contextlib.suppress(OSError):  # takes back the directories of a run not begun,
            os.removedirs(directory)  # and fails where there is something to keep
        raise _Mistake(error) from error
    except KeyboardInterrupt:
        if "hydra.run.dir=" not in command:
            command += f" hydra.run.dir={directory}"
        say(f"\ninterrupted, nothing is lost; to resume: {command}")
        raise


def flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line that say where recipes are, and its other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    known, others = parser.parse_known_args(arguments)
    return ["--config-dir", known.config_dir] if known.config_dir else [], others
