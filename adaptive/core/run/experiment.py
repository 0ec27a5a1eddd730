"""An experiment: a configuration that can be run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adaptive.core.run.directory import REPORT, RunDir
from adaptive.core.run.engine import follow, run_stages
from adaptive.core.run.environment import resolve_device
from adaptive.core.run.failure import failures_recorded, full_disk_told
from adaptive.core.run.ranks import Ranks
from adaptive.core.run.stage import Stage
from adaptive.core.run.task import TASKS, TaskConfig
from adaptive.core.run.tracking import check_trackers


@dataclass(frozen=True)
class Result:
    """What a finished run left behind.

    Attributes:
        dir: the run directory.
        summary: flat dotted names to numbers or strings, as in ``summary.json``.
    """

    dir: Path
    summary: dict[str, Any]

    @property
    def report(self) -> Path | None:
        """The one-page report; None for tasks that make none."""
        path = self.dir / REPORT
        return path if path.exists() else None

    @classmethod
    def read(cls, directory: str | Path) -> Result:
        """The result of a run that finished earlier."""
        directory = Path(directory)
        return cls(directory, json.loads((directory / "summary.json").read_text()))

    def table(self) -> str:
        """The summary as aligned lines of text."""
        width = max(map(len, self.summary), default=0)
        cells = {key: _cell(value) for key, value in self.summary.items()}
        # Numbers end at one column; text begins where its line does.
        right = max((len(c) for k, c in cells.items() if not _is_text(self.summary[k])), default=0)
        return "\n".join(
            f"{key:<{width}}  {cell if _is_text(self.summary[key]) else cell.rjust(right)}"
            for key, cell in cells.items()
        )


@dataclass(frozen=True)
class Experiment:
    """A validated configuration, from :func:`adaptive.load` or from the command line.

    Attributes:
        config: of the dataclass that its task registered.
        command: the shell command or Python call that runs it, for ``run.json``.
        overrides: what was changed of the recipe, as ``KEY=VALUE``, for ``run.json``.
    """

    config: TaskConfig
    command: str = ""
    overrides: tuple[str, ...] = ()

    def stages(self) -> list[Stage]:
        """The stages that :meth:`run` goes through."""
        return TASKS[self.config.task].stages(self.config)

    def run(
        self,
        dir: str | Path | None = None,
        ranks: Ranks | None = None,
        unless_done: bool = False,
    ) -> Result:
        """Runs, or resumes, the experiment and prints its table of results.

        Started by ``torchrun``, the processes share the work; the main one's ``dir`` counts.

        Args:
            dir: run directory; ``runs/NAME/<time>`` when left out.
            ranks: the processes that share the work; None asks the environment. A run inside a
                stage of another has the processes of that stage.
            unless_done: do not go through the stages of a run that has ended well.

        Raises:
            DoneBeforeError: it has, and ``unless_done`` is set.
            UserError: a mistake in the configuration or in what it points to.
        """
        if dir is None:
            dir = Path("runs", self.config.name, datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
        resolve_device(self.config.device)  # a device that is not there leaves no directory
        check_trackers(self.config.tracking)
        joined = ranks is None
        ranks = ranks or Ranks.here(self.config.device)
        dir = Path(ranks.broadcast(str(Path(dir).resolve()) if ranks.world > 1 else str(dir)))
        if not ranks.main:
            follow(self.stages(), RunDir(dir), device=self.config.device, ranks=ranks)
            ranks.leave()
            return Result.read(dir)
        with full_disk_told(Path(dir)):
            run = RunDir(Path(dir))
            with run.opened(self.config, self.command, self.overrides, unless_done):
                with failures_recorded(run):  # stages may look at files already
                    stages = self.stages()
                config = self.config
                summary = run_stages(
                    stages, run, seed=config.seed, device=config.device, ranks=ranks
                )
        if joined:
            ranks.leave()
        result = Result(run.path, summary)
        print(result.table())
        print(f"\nreport: {result.report or run.path}", flush=True)
        return result


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 1e5 else f"{value:.4g}"
