"""Runs as jobs of a SLURM cluster, through submitit.

A job that is preempted, or reaches its time limit, gets a signal: it interrupts its run, asks to be
requeued, and goes on in the same directory. The jobs live on when this process ends; the same sweep
started again waits for them.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from adaptive.core.errors import UserError
from adaptive.core.run.atomic import atomic_write_json
from adaptive.core.run.commandline import FAILED
from adaptive.core.run.launch.config import SlurmConfig
from adaptive.core.run.launch.job import STOPPED, Job
from adaptive.core.run.progress import duration, say

if TYPE_CHECKING:
    from submitit import Job as Submitted
    from submitit.helpers import DelayedSubmission

    Waiting = dict[str, tuple[Job, Submitted[int]]]  # by the job's number

FOLDER = Path("runs", ".slurm")
"""Scripts, logs and results of the jobs."""

TICKET = ".slurm.json"
"""In a run directory: the job that was submitted for it."""

SILENCE = 600.0  # seconds for which the scheduler may fail to answer
PAUSE = 15.0  # seconds between two questions then


@dataclass
class SlurmRun:
    """What a job of the cluster does: pickled by submitit, so found by its name there."""

    job: Job
    patience: float  # seconds that a stopped run waits for the scheduler to stop its job too

    def __call__(self) -> int:
        """Exit status of the run."""
        with _noted(signal.SIGTERM) as told:
            status = self.job.run()
            if status and told and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
                # Told to stop, which is all that some preemptions say before they kill. (Under
                # torchrun the run's status is that of any failure.)
                self._requeue()
            elif status in STOPPED:
                # The scheduler told all processes to stop, and the run has; the signal that
                # requeues the job, or the end, is on its way here.
                time.sleep(self.patience)
        return status

    def _requeue(self) -> None:
        """Asks to be requeued, unless the scheduler has taken the job away: then it requeues the
        job itself, or somebody has cancelled it, and the end is on its way here."""
        from submitit import JobEnvironment

        job = JobEnvironment()
        command = ["squeue", "--noheader", "--format=%T", f"--jobs={job.job_id}"]
        try:
            found = subprocess.run(command, capture_output=True, text=True)
            state = found.stdout.strip() if found.returncode == 0 else None
        except OSError:
            state = None
        if state != "RUNNING":
            time.sleep(self.patience)
        if state in ("RUNNING", None):  # None: the scheduler does not say, and nothing has come
            signal.raise_signal(getattr(signal, f"SIG{job.USR_SIG}"))  # ends this process

    def checkpoint(self) -> DelayedSubmission:
        """What to do after the job is requeued: the same, which resumes."""
        from submitit.helpers import DelayedSubmission

        self.job.stop()
        return DelayedSubmission(self)


@contextlib.contextmanager
def _noted(number: signal.Signals) -> Iterator[list[int]]:
    """Notes every arrival of a signal, beside what its handler does."""
    seen: list[int] = []
    before = signal.getsignal(number)

    def note(arrived: int, frame: FrameType | None) -> None:
        seen.append(arrived)
        if callable(before):
            before(arrived, frame)

    signal.signal(number, note)
    try:
        yield seen
    finally:
        signal.signal(number, before)


def launch(jobs: Sequence[Job], settings: SlurmConfig) -> Iterator[tuple[Job, int]]:
    """Yields every job with its run's exit status, in the order in which they end.

    Raises:
        UserError: submitit, or a command of the scheduler, is not there, or it refuses the jobs.
    """
    executor = _executor(settings)
    waiting = {} if settings.scheduler == "local" else _submitted_before(jobs)
    if waiting:
        say(f"{len(waiting)} runs are in the queue already: jobs {', '.join(waiting)}")
    known = [job for job, _ in waiting.values()]
    fresh = [job for job in jobs if job not in known]
    for job, submitted in zip(fresh, _submit(executor, fresh, settings), strict=True):
        job.path.mkdir(parents=True, exist_ok=True)
        atomic_write_json(job.path / TICKET, {"id": submitted.job_id})
        waiting[submitted.job_id] = (job, submitted)
    try:
        yield from _ended(waiting, settings)
    except KeyboardInterrupt:
        if settings.scheduler == "slurm":
            say(
                f"\njobs {', '.join(waiting)} go on without this process; to stop them: "
                f"scancel {' '.join(waiting)}"
            )
        else:
            for _, submitted in waiting.values():
                submitted.cancel()
        raise


def _executor(settings: SlurmConfig) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "hydra/launcher=slurm needs submitit: pip install 'adaptive-compute[slurm]'"
        ) from None
    if settings.scheduler == "slurm":
        for command in ("sbatch", "srun", "squeue", "scontrol"):
            if shutil.which(command) is None:
                raise UserError(
                    f"hydra/launcher=slurm needs the scheduler's command {command}, which is not "
                    "here: start the sweep on a node that submits jobs, or choose cluster=local"
                )
    executor = submitit.AutoExecutor(
        _folder(settings), cluster=settings.scheduler, slurm_max_num_timeout=settings.restarts
    )
    gpus = {"gpus_per_node": settings.gpus} if settings.gpus else {}
    executor.update_parameters(
        name="adaptive",
        timeout_min=settings.minutes,
        mem_gb=settings.memory_gb,
        cpus_per_task=settings.cpus,
        tasks_per_node=1,
        nodes=1,
        slurm_array_parallelism=settings.at_once,
        slurm_signal_delay_s=settings.warning_seconds,
        slurm_partition=settings.partition,
        slurm_account=settings.account,
        slurm_qos=settings.qos,
        slurm_setup=settings.setup or None,
        slurm_additional_parameters={"requeue": True, **settings.options},
        **gpus,
    )
    return executor


def _submit(executor: Any, jobs: Sequence[Job], settings: SlurmConfig) -> list[Submitted[int]]:
    if not jobs:
        return []
    try:
        with executor.batch():
            runs = [SlurmRun(job, 2 * settings.warning_seconds) for job in jobs]
            submitted = [executor.submit(run) for run in runs]
    except Exception as error:
        if type(error).__name__ != "FailedJobError":
            raise
        words = " ".join(str(error).split())
        raise UserError(f"sbatch refuses the jobs: {words}") from error
    say(f"submitted as jobs {', '.join(job.job_id for job in submitted)}; logs in {FOLDER}")
    return submitted


def _folder(settings: SlurmConfig) -> Path:
    """Of the jobs' files. The local executor calls jobs by their process, and those come again."""
    own = f"local-{os.getpid()}-{time.time_ns()}" if settings.scheduler == "local" else ""
    return FOLDER.absolute() / own / "%j"


def _submitted_before(jobs: Sequence[Job]) -> Waiting:
    """The jobs that an earlier launch submitted, and that are in the queue still."""
    from submitit import SlurmJob

    tickets = {}
    for job in jobs:
        with contextlib.suppress(OSError, ValueError, KeyError):
            tickets[json.loads((job.path / TICKET).read_text())["id"]] = job
    alive = _in_queue() if tickets else set()
    folder = _folder(SlurmConfig())
    return {n: (job, SlurmJob(folder, n)) for n, job in tickets.items() if n in alive}


def _ended(waiting: Waiting, settings: SlurmConfig) -> Iterator[tuple[Job, int]]:
    gone: set[str] = set()  # from the queue at the last look, without a result
    while waiting:
        if settings.scheduler == "local":
            alive = {n for n, (_, submitted) in waiting.items() if submitted.state == "RUNNING"}
        else:
            alive = _in_queue(waiting)
        for number, (job, submitted) in list(waiting.items()):
            ended = submitted.paths.result_pickle.exists()
            if not ended and number in alive:
                continue
            if not ended and number not in gone:
                gone.add(number)  # a file that another node has written may come late
                continue
            del waiting[number]
            (job.path / TICKET).unlink(missing_ok=True)
            yield job, _status(job, submitted, ended, settings)
        if waiting:
            time.sleep(settings.poll_seconds)


def _status(job: Job, submitted: Submitted[int], ended: bool, settings: SlurmConfig) -> int:
    """Exit status of a run; what went wrong outside of it is added to its log."""
    where = f"; its log is {submitted.paths.stderr}"
    if not ended:
        job.note(
            f"error: job {submitted.job_id} has left the queue without a result: it was cancelled, "
            f"or its node failed{where}"
        )
        return FAILED
    error = submitted.exception()
    if error is None:
        return submitted.result()
    if "timed-out too many times" in str(error):
        job.note(
            f"error: stopped at its time limit of hydra.launcher.minutes={settings.minutes} more "
            f"than hydra.launcher.restarts={settings.restarts} times; the same sweep again goes on"
        )
    else:
        job.note(f"error: job {submitted.job_id} failed outside of the run{where}")
    return FAILED


def _in_queue(jobs: Iterable[str] = ()) -> set[str]:
    """Numbers of this user's jobs that wait or run.

    Args:
        jobs: that go on, whatever happens here.

    Raises:
        UserError: the scheduler does not answer for ``SILENCE`` seconds.
    """
    user = os.environ.get("USER") or getpass.getuser()
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={user}"]
    end = time.monotonic() + SILENCE
    while True:
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode == 0:
            return set(found.stdout.split())
        if time.monotonic() >= end:
            break
        time.sleep(PAUSE)  # a scheduler that is busy, or starts anew, is no reason to give up
    words = " ".join(found.stderr.split())
    names = ", ".join(jobs)
    after = f"; jobs {names} go on, and the same sweep again waits for them" if names else ""
    raise UserError(f"squeue has not answered for {duration(SILENCE)} ({words}){after}")
