"""What a task is: a configuration dataclass and a function that turns it into stages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adaptive.core.registry import Registry

if TYPE_CHECKING:
    from adaptive.core.run.stage import Stage


@dataclass
class TaskConfig:
    """What every experiment's configuration has; tasks subclass it and add their own fields."""

    name: str = "unnamed"  # of the experiment: the recipe's file name, and runs/NAME on disk
    task: str = ""  # name in TASKS; the Hydra group option `task=...` sets it
    seed: int = 0  # every stage is seeded from this number and its own name
    device: str = "auto"  # "cpu", "cuda", "cuda:1"; "auto" takes a GPU where there is one
    tracking: list[str] = field(default_factory=list)  # also shown in "tensorboard", "wandb"

    def validate(self) -> None:
        """Raises ``UserError`` for values that the types allow and the task does not."""


@dataclass(frozen=True)
class Axis:
    """One side of what a task trades: a number of its summary.

    Attributes:
        name: in ``summary.json``.
        more: whether more of it is better; else less is.
    """

    name: str
    more: bool = False


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: its name in TASKS.
        config: the dataclass of its configuration; importing it must not import torch.
        entry: ``"module:function"`` of ``function(config) -> list[Stage]``, imported when a run
            starts, so that composing a configuration and ``--help`` stay quick.
        groups: fields of the configuration that are chosen by name, ``FIELD=NAME``: field to name
            to dataclass instance, the default first. Their own settings stay ``FIELD.KEY=VALUE``.
        cost: what its runs spend, for the frontier of several runs: the first of these that the
            runs measured counts, so measured ones stand before predicted ones.
        quality: what they get for it, likewise.
    """

    name: str
    config: type[TaskConfig]
    entry: str
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cost: tuple[Axis, ...] = ()
    quality: tuple[Axis, ...] = ()

    def stages(self, config: TaskConfig) -> list[Stage]:
        """The stages of one experiment, in order."""
        module, _, attribute = self.entry.partition(":")
        function: Callable[[Any], list[Stage]] = getattr(importlib.import_module(module), attribute)
        return function(config)


class TaskRegistry(Mapping[str, Task]):
    """Names to tasks; families register in their torch-free ``config`` module.

    >>> TASKS.register("puzzle", config=PuzzleConfig, entry="adaptive.llm_puzzle.pipeline:stages")
    """

    def __init__(self) -> None:
        self._tasks: Registry[Task] = Registry("task")

    def register(
        self,
        name: str,
        *,
        config: type[TaskConfig],
        entry: str,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        cost: tuple[Axis, ...] = (),
        quality: tuple[Axis, ...] = (),
    ) -> None:
        """Files a task under ``name``; names are taken once. The rest is as in :class:`Task`."""
        self._tasks.register(name)(Task(name, config, entry, groups or {}, cost, quality))

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks


TASKS = TaskRegistry()
