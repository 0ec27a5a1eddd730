"""Settings of the launchers: ``hydra.launcher.KEY=VALUE`` on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adaptive.core.errors import UserError


@dataclass
class LauncherConfig:
    """What all launchers have."""

    kind: str = ""  # name in LAUNCHERS
    processes: int = 1  # of a run, started by torchrun: for parents that take several GPUs

    def validate(self) -> None:
        """Raises ``UserError`` for values that the types allow and the launcher does not."""
        self.at_least(1, "processes")

    def at_least(self, least: int, *names: str) -> None:
        """Refuses smaller values of the settings ``names``."""
        for name in names:
            if getattr(self, name) < least:
                raise UserError(
                    f"hydra.launcher.{name}={getattr(self, name)} must be at least {least}"
                )

    def a_gpu_each(self, gpus: float) -> None:
        """Refuses a run of several processes that has GPUs, but fewer than processes."""
        if 0 < gpus < self.processes and self.processes > 1:
            raise UserError(
                f"hydra.launcher.processes={self.processes} needs as many GPUs, and "
                f"hydra.launcher.gpus={gpus:g}: set gpus={self.processes}, or gpus=0 for CPUs"
            )


@dataclass
class JoblibConfig(LauncherConfig):
    """Processes on this machine."""

    kind: str = "joblib"
    # runs at a time, -1 for one a core; null: as many as there are GPUs for, and one where there is
    # no GPU, as runs side by side on a CPU would spoil the times that they measure
    n_jobs: int | None = None

    def validate(self) -> None:
        super().validate()
        if self.n_jobs == 0:
            raise UserError("hydra.launcher.n_jobs=0 runs nothing: name a number, or -1 for all")


@dataclass
class SlurmConfig(LauncherConfig):
    """Jobs of a SLURM cluster: one array, whose jobs are requeued when they are preempted or reach
    their time limit, and go on where they were."""

    kind: str = "slurm"
    minutes: int = 240  # time limit of a job
    restarts: int = 20  # how often a job that reached its limit goes on
    warning_seconds: int = 90  # the scheduler's signal comes so long before a job is stopped
    at_once: int = 256  # jobs of the array that run at a time
    gpus: int = 1  # of a job, which is on one node
    cpus: int = 8
    memory_gb: float = 32.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    setup: list[str] = field(
        default_factory=list
    )  # shell commands before a job, such as module load
    options: dict[str, Any] = field(
        default_factory=dict
    )  # further ones of sbatch, such as nice: 100
    poll_seconds: float = 10.0  # between two looks at the queue
    scheduler: str = "slurm"  # local: submitit's own processes, to try a sweep without a cluster

    def validate(self) -> None:
        super().validate()
        self.at_least(1, "minutes", "warning_seconds", "at_once", "cpus")
        self.at_least(0, "restarts", "gpus")
        self.a_gpu_each(self.gpus)
        if not self.poll_seconds > 0:
            raise UserError(f"hydra.launcher.poll_seconds={self.poll_seconds:g} must be above 0")
        if self.scheduler not in ("slurm", "local"):
            raise UserError(
                f"hydra.launcher.scheduler={self.scheduler!r} is unknown, choose slurm or local"
            )


@dataclass
class RayConfig(LauncherConfig):
    """Tasks of a Ray cluster, which packs them onto its nodes by what they need."""

    kind: str = "ray"
    # of the cluster, such as ray://head:10001; auto: the one that this machine belongs to; null:
    # this machine alone
    address: str | None = "auto"
    gpus: float = 1.0  # of a run; 0.5 packs two onto a GPU
    cpus: float = 1.0
    memory_gb: float | None = None
    retries: int = 3  # of a run whose node or worker has died
    env_vars: dict[str, str] = field(default_factory=dict)  # of the runs

    def validate(self) -> None:
        super().validate()
        self.at_least(0, "gpus", "cpus", "retries")
        self.a_gpu_each(self.gpus)
