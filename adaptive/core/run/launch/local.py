"""Runs as processes of this machine, several at a time."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import warnings
from collections.abc import Iterator, Sequence

from adaptive.core.errors import UserError
from adaptive.core.run.commandline import INTERRUPTED
from adaptive.core.run.launch.config import JoblibConfig
from adaptive.core.run.launch.job import Job, stop_all


def launch(jobs: Sequence[Job], settings: JoblibConfig) -> Iterator[tuple[Job, int]]:
    """Yields every job with its exit status, in the order in which they end.

    Where there are GPUs each run sees its own, ``settings.processes`` of them, unless more runs
    are asked for than there are GPUs for.

    Raises:
        UserError: joblib is not installed.
    """
    try:
        from joblib import Parallel, delayed, effective_n_jobs
    except ImportError:
        raise UserError(
            "hydra/launcher=joblib needs joblib: pip install 'adaptive-compute[joblib]'"
        ) from None
    gpus = gpu_ids()
    share = settings.processes
    groups = [gpus[i : i + share] for i in range(0, len(gpus) - share + 1, share)]
    count = max(1, len(groups)) if settings.n_jobs is None else effective_n_jobs(settings.n_jobs)
    places: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for i in range(count):
        places.put(_environment(groups[i] if count <= len(groups) else None, count, settings))

    over = threading.Event()

    def run(job: Job) -> tuple[Job, int]:
        if over.is_set():  # while runs are stopped, a thread takes the next one up
            return job, INTERRUPTED
        place = places.get()
        try:
            return job, job.run(place)
        finally:
            places.put(place)

    # Threads suffice: all that they do is to wait for a process.
    parallel = Parallel(n_jobs=count, backend="threading", return_as="generator_unordered")
    ended = parallel(delayed(run)(job) for job in jobs)
    try:
        while (one := next(ended, None)) is not None:
            yield one
    finally:  # also where nobody asks for the rest
        over.set()
        stop_all(jobs)
        with warnings.catch_warnings():  # joblib's, that there was a rest
            warnings.simplefilter("ignore")
            ended.close()


def gpu_ids() -> list[str]:
    """The GPUs that a run may use, as ``CUDA_VISIBLE_DEVICES`` names them; needs no torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu not in ("", "-1")]
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    count = sum(line.startswith("GPU ") for line in found.stdout.splitlines())
    return [str(i) for i in range(count)]


def _environment(gpus: Sequence[str] | None, count: int, settings: JoblibConfig) -> dict[str, str]:
    if gpus is not None:
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    if count * settings.processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    # All threads of all runs together are as many as there are cores.
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (count * settings.processes)))}
