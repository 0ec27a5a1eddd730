"""Launchers: where the runs of a sweep happen. Each is a process of its own with its own command.

A launcher is a function of jobs and settings that yields every job with its exit status as it ends.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adaptive.core.registry import Registry
from adaptive.core.run.launch.config import JoblibConfig, LauncherConfig, RayConfig, SlurmConfig
from adaptive.core.run.launch.job import Job

__all__ = [
    "LAUNCHERS",
    "Job",
    "JoblibConfig",
    "LauncherConfig",
    "RayConfig",
    "SlurmConfig",
    "launch_of",
]

Launch = Callable[[Sequence[Job], Any], Iterator[tuple[Job, int]]]

LAUNCHERS: Registry[tuple[type[LauncherConfig], str]] = Registry("hydra/launcher")
LAUNCHERS.register("joblib")((JoblibConfig, "adaptive.core.run.launch.local:launch"))
LAUNCHERS.register("slurm")((SlurmConfig, "adaptive.core.run.launch.slurm:launch"))
LAUNCHERS.register("ray")((RayConfig, "adaptive.core.run.launch.on_ray:launch"))


def launch_of(name: str) -> Launch:
    """The function of a launcher, whose module is imported now."""
    module, _, function = LAUNCHERS[name][1].partition(":")
    return getattr(importlib.import_module(module), function)
