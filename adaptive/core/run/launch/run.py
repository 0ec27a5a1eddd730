"""Running the jobs of a sweep, and telling it how each ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adaptive.core.run import launch
from adaptive.core.run.commandline import IN_USE
from adaptive.core.run.launch.config import LauncherConfig
from adaptive.core.run.launch.job import Job
from adaptive.core.run.lock import holder
from adaptive.core.run.progress import say
from adaptive.core.run.sweep import DONE, Sweep


def run_jobs(jobs: Mapping[Path, Job], settings: LauncherConfig, sweep: Sweep) -> None:
    """Runs ``jobs`` until each has succeeded or failed.

    One whose directory another process holds comes again when that process has ended: it is done
    by then, or goes on where it was left.

    Args:
        jobs: directory to job.
        settings: of the launcher.
        sweep: is told.

    Raises:
        UserError: the launcher cannot start here.
    """
    left = dict(jobs)
    start = launch.launch_of(settings.kind)
    # At first all: who holds a directory may be a job of an earlier launch, which the launcher of a
    # cluster finds again.
    free = list(left.values())
    while left:
        if not free:
            directory, job = next(iter(left.items()))
            sweep.wait_for(directory)
            free = [job]
        say(f"{len(free)} runs for hydra/launcher={settings.kind}; each prints to its job.log")
        try:
            for job, status in start(free, settings):
                directory = Path(job.directory)
                if status and (status == IN_USE or holder(directory) is not None):
                    continue  # torchrun has one exit status for all that goes wrong
                del left[directory]
                if status == 0:
                    sweep.ended(directory, DONE)
                else:
                    sweep.failed(directory, job.why(status))
        except KeyboardInterrupt:
            sweep.interrupted()
            raise
        free = [job for directory, job in left.items() if holder(directory) is None]
