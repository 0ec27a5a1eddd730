"""Where Hydra finds our launchers: it takes plug-ins from packages of this name only.

Every Hydra application of the environment imports this file, so it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CommandLauncher(Launcher):
    """Hydra's launcher of every kind in ``adaptive.core.run.launch.LAUNCHERS``."""

    def __init__(self, **settings: Any):
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what :meth:`launch` needs; refuses wrong settings before a file is written."""
        from adaptive.launcher import checked

        self.launcher = checked(self.settings)
        self.context = hydra_context
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs the jobs that are not done, and returns when all have ended."""
        from adaptive.launcher import launch

        setup_globals()
        jobs = [
            (
                list(overrides),
                self.context.config_loader.load_sweep_config(self.config, [*overrides]),
            )
            for overrides in job_overrides
        ]
        launch(jobs, self.launcher, list(self.config.hydra.overrides.hydra))
        # The sweep itself tells what has failed, all of it; Hydra would raise the first error.
        return [JobReturn(status=JobStatus.COMPLETED)] * len(job_overrides)
