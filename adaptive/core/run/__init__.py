"""Runs: a directory, stages that resume, and what is known about how a result came to be."""

from __future__ import annotations

from adaptive.core.run.atomic import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    to_plain,
)
from adaptive.core.run.directory import RunDir
from adaptive.core.run.engine import run_stages
from adaptive.core.run.environment import environment, resolve_device
from adaptive.core.run.experiment import Experiment, Result
from adaptive.core.run.manifest import Manifest, digest, file_marks
from adaptive.core.run.metrics import MetricsLog
from adaptive.core.run.progress import duration, say, track
from adaptive.core.run.ranks import LostRank, Ranks, shares
from adaptive.core.run.seed import seed_everything, stage_seed
from adaptive.core.run.stage import Stage, StageContext
from adaptive.core.run.task import TASKS, Axis, Task, TaskConfig

__all__ = [
    "TASKS",
    "Axis",
    "Experiment",
    "LostRank",
    "Manifest",
    "MetricsLog",
    "Ranks",
    "Result",
    "RunDir",
    "Stage",
    "StageContext",
    "Task",
    "TaskConfig",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "digest",
    "duration",
    "environment",
    "file_marks",
    "resolve_device",
    "run_stages",
    "say",
    "seed_everything",
    "shares",
    "stage_seed",
    "to_plain",
    "track",
]
