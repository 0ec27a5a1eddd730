"""Configuration of the task `collect`; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive.core.collect.axes import BEST
from adaptive.core.errors import UserError
from adaptive.core.run.task import TASKS, TaskConfig


@dataclass
class CollectConfig(TaskConfig):
    """Gathers the runs below a directory."""

    device: str = "cpu"  # nothing here computes
    runs: str = ""  # directory, such as runs/puzzle_tiny/sweep
    recipe: str | None = None  # of the runs; null: the one that there is
    # numbers of the summaries (or wall_seconds) that the frontier is about; null: those of the
    # runs' task, see Task.cost and Task.quality
    x: str | None = None
    y: str | None = None
    x_best: str | None = None  # least or most; null: as the task has it, else least
    y_best: str | None = None
    # numbers of the summaries shown in the page's table; null: the first that differ between runs.
    # table.csv has all
    columns: list[str] | None = None

    def validate(self) -> None:
        if not self.runs:
            raise UserError("runs is empty: name a directory of runs, such as runs/NAME/sweep")
        for name in ("x_best", "y_best"):
            if getattr(self, name) not in BEST:
                raise UserError(f"{name}={getattr(self, name)!r} is unknown, choose least or most")


TASKS.register("collect", config=CollectConfig, entry="adaptive.core.collect.stages:stages")
