"""Runs as tasks of a Ray cluster, which packs them onto its nodes by what each needs.

The nodes see the same files: a run's directory is the place where it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.run.commandline import FAILED
from adaptive.core.run.launch.config import RayConfig
from adaptive.core.run.launch.job import Job


def launch(jobs: Sequence[Job], settings: RayConfig) -> Iterator[tuple[Job, int]]:
    """Yields every job with its exit status, in the order in which they end.

    Raises:
        UserError: Ray is not installed, its cluster is not there, or has no node for such a run.
    """
    try:
        import ray  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            "hydra/launcher=ray needs ray: pip install 'adaptive-compute[ray]'"
        ) from None
    try:
        ray.init(
            address=settings.address,
            log_to_driver=False,
            ignore_reinit_error=True,
            logging_level="ERROR",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"hydra.launcher.address={settings.address}: no Ray cluster answers there "
            f"({str(error).splitlines()[0]}); start one with `ray start --head`, or set "
            "hydra.launcher.address=null for this machine alone"
        ) from error
    _refuse_what_fits_nowhere(ray, settings)
    remote = ray.remote(**options(settings))(_run)
    running = {remote.remote(job): job for job in jobs}
    try:
        while running:
            (reference,), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(reference)
            try:
                status = ray.get(reference)
            except ray.exceptions.RayError as error:
                words = str(error).strip().splitlines()
                job.note(f"error: Ray lost the run: {words[0] if words else type(error).__name__}")
                status = FAILED
            yield job, status
    except KeyboardInterrupt:
        for reference in running:
            ray.cancel(reference)
        raise
    finally:
        ray.shutdown()


def options(settings: RayConfig) -> dict[str, Any]:
    """What Ray is told of a task: what it needs, and that it may be run again where a node dies."""
    memory = {} if settings.memory_gb is None else {"memory": int(settings.memory_gb * 2**30)}
    return {
        "num_gpus": settings.gpus,
        "num_cpus": settings.cpus,
        "max_retries": settings.retries,
        "runtime_env": {"env_vars": dict(settings.env_vars)},
        **memory,
    }


def _run(job: Job) -> int:
    try:
        return job.run()  # CUDA_VISIBLE_DEVICES is what Ray gave this task
    except KeyboardInterrupt:  # cancelled
        job.stop()
        raise


def _refuse_what_fits_nowhere(ray: Any, settings: RayConfig) -> None:
    """Ray would wait for such a node for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(
        n.get("GPU", 0) >= settings.gpus and n.get("CPU", 0) >= settings.cpus for n in nodes
    ):
        most = {kind: max((n.get(kind, 0) for n in nodes), default=0) for kind in ("GPU", "CPU")}
        ray.shutdown()
        raise UserError(
            f"hydra.launcher.gpus={settings.gpus:g} and cpus={settings.cpus:g}: no node of the "
            f"cluster has that, the largest have {most['GPU']:g} GPUs and {most['CPU']:g} CPUs"
        )
