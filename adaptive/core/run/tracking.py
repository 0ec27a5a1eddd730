"""TensorBoard and Weights & Biases: a copy of what a run logs, off by default.

``metrics.jsonl`` and ``summary.json`` stay the record; a tracker shows it while it grows. Nothing
leaves the machine: W&B runs offline unless the user sets ``WANDB_MODE``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.core.run.atomic import atomic_write_json, to_plain

if TYPE_CHECKING:
    from adaptive.core.run.task import TaskConfig

WANDB_FILE = "wandb.json"
"""In the run directory: the id under which W&B knows the run, so that a resumed one goes on."""


class Tracker(Protocol):
    """Somewhere that shows what is logged."""

    def log(self, stage: str, step: float, values: Mapping[str, float]) -> None:
        """Takes measurements of a step; names are ``stage/value`` or ``stage/value/label=x``."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Takes the run's result."""

    def close(self, failed: bool) -> None:
        """Writes what is left."""


Start = Callable[[Path, "TaskConfig"], Tracker]
TRACKERS: Registry[Start] = Registry("tracker")


def check_trackers(names: Sequence[str]) -> None:
    """Refuses names that mean nothing, and those whose package is not installed.

    Raises:
        UserError: with the mend.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"tracking={name}: {TRACKERS.unknown(name)}")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"tracking={name} needs the package {name}: pip install 'adaptive-compute[{name}]'"
            )


class Tracking:
    """The trackers of a run as one; none of them by default.

    Args:
        trackers: that take everything.
    """

    def __init__(self, trackers: Sequence[Tracker] = ()):
        self._trackers = list(trackers)
        self._counts: dict[str, int] = {}

    @classmethod
    def start(cls, run: Path, config: TaskConfig) -> Tracking:
        """Begins, or continues, the trackers that ``config.tracking`` names."""
        names = list(dict.fromkeys(config.tracking))
        check_trackers(names)
        return cls([TRACKERS[name](run, config) for name in names])

    def log(self, stage: str, step: float | None, metrics: Mapping[str, Any]) -> None:
        """Hands on a record; what tells records of the same step apart becomes part of the names.

        A record without a step stands at its first whole number, such as a layer, and else at the
        count of its stage's records.
        """
        if not self._trackers:
            return
        values = {name: float(v) for name, v in metrics.items() if _measured(v)}
        labels = {name: v for name, v in metrics.items() if not _measured(v) and v is not None}
        if step is None:
            whole = next((n for n, v in labels.items() if type(v) is int), None)
            step = self._counts.get(stage, 0) if whole is None else labels.pop(whole)
        self._counts[stage] = self._counts.get(stage, 0) + 1
        apart = "".join(f"/{name}={to_plain(value)}" for name, value in sorted(labels.items()))
        named = {f"{stage}/{name}{apart}": value for name, value in values.items()}
        for tracker in self._trackers if named else ():
            tracker.log(stage, float(step), named)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Hands on the run's result."""
        for tracker in self._trackers:
            tracker.summary(values)

    def close(self, failed: bool) -> None:
        """Ends the trackers of this attempt; a resumed run starts them again."""
        for tracker in self._trackers:
            tracker.close(failed)
        self._trackers = []


def _measured(value: Any) -> bool:
    """Floats are measurements, as in ``metrics.jsonl``; NumPy's and torch's count too."""
    return isinstance(value, float) or (hasattr(value, "tolist") and type(value.tolist()) is float)


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Event files in ``RUN/tensorboard``, where a resumed run adds its own.

    Args:
        run: the run directory.
        config: of the run.
    """

    def __init__(self, run: Path, config: TaskConfig):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(os.fspath(run / "tensorboard"), flush_secs=10)
        text = json.dumps(to_plain(config), indent=2)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, stage: str, step: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, round(step))

    def summary(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(f"summary/{name}", value, 0)
            elif value is not None:
                self._writer.add_text(f"summary/{name}", str(value), 0)

    def close(self, failed: bool) -> None:
        self._writer.close()


@TRACKERS.register("wandb")
class WandB:
    """An offline run in ``RUN/wandb``, for ``wandb sync`` to send when the user wants it.

    Args:
        run: the run directory.
        config: of the run.
    """

    def __init__(self, run: Path, config: TaskConfig):
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":  # reports of its crashes would be sent all the same
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyrefly: ignore[missing-import]

        file = run / WANDB_FILE
        if not file.exists():
            atomic_write_json(file, {"id": secrets.token_hex(4), "time": time.time()})
        known = json.loads(file.read_text())
        self._begun, self._row = known["time"], 0
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "adaptive"),
            name=config.name,
            id=known["id"],
            resume="allow",
            dir=os.fspath(run),
            mode=mode,
            config=to_plain(config),
            allow_val_change=True,  # a run may go on under other settings
            settings=wandb.Settings(console="off", silent=True),
        )
        self._stages: set[str] = set()

    def log(self, stage: str, step: float, values: Mapping[str, float]) -> None:
        if stage not in self._stages:  # each stage counts its own steps
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        # W&B drops rows whose number it has had: those of a resumed run have to be greater, which
        # milliseconds since the first start are.
        self._row = max(self._row + 1, int(1e3 * (time.time() - self._begun)))
        self._run.log({**values, f"{stage}/step": step}, step=self._row)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
