"""Configuration of the task `frontiers`; free of torch."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from adaptive.core.collect.axes import BEST
from adaptive.core.errors import UserError
from adaptive.core.run.task import TASKS, TaskConfig

NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass
class ReferenceConfig:
    """What the costs and the qualities of a part are relative to: either numbers that every run
    measures of it too, or a run of its own."""

    cost: str | None = None  # numbers of the runs' summaries
    quality: str | None = None
    # settings of its own run, in the place of the part's `over`; null: see cost and quality
    set: dict[str, Any] | None = None

    def validate(self, prefix: str) -> None:
        """Raises UserError unless it says one thing, or nothing."""
        if (self.cost is None) != (self.quality is None):
            given, lacking = ("cost", "quality") if self.cost else ("quality", "cost")
            raise UserError(
                f"{prefix}.{given}={getattr(self, given)} needs {prefix}.{lacking} too: name both "
                "numbers of the summaries, or neither"
            )
        if self.cost is not None and self.set is not None:
            raise UserError(
                f"{prefix}.cost={self.cost} is measured by every run, {prefix}.set by a run of its "
                "own: set one of them to null"
            )


@dataclass
class PartConfig:
    """Runs of one recipe that differ in what they may spend."""

    exp: str = ""  # the recipe
    set: dict[str, Any] = field(default_factory=dict)  # settings of all its runs; ~KEY: takes away
    over: str = ""  # the setting that differs
    values: list[Any] = field(default_factory=list)  # of it, one a run
    # numbers of the summaries; null: those of the recipe's task, see Task.cost and Task.quality
    cost: str | None = None
    quality: str | None = None
    cost_best: str | None = None  # least or most; null: as the task has it, else least
    quality_best: str | None = None
    cost_label: str | None = None  # with its unit, for the page; null: the number's name
    quality_label: str | None = None
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)

    def validate(self, prefix: str) -> None:
        """Raises UserError for a part that is no frontier."""
        for name, example in (("exp", "puzzle_tiny"), ("over", "budget.latency")):
            if not getattr(self, name):
                raise UserError(f"{prefix}.{name} is empty: name one, such as {example}")
        if not self.values:
            raise UserError(f"{prefix}.values is empty: list values of {self.over}, as [60%,80%]")
        twice = [text for text, count in Counter(map(str, self.values)).items() if count > 1]
        if twice:
            raise UserError(f"{prefix}.values has {twice[0]} twice: leave one out")
        if self.over in self.set:
            raise UserError(f"{prefix}.set.{self.over} is what {prefix}.over changes: leave it out")
        for name in ("cost_best", "quality_best"):
            if getattr(self, name) not in BEST:
                raise UserError(
                    f"{prefix}.{name}={getattr(self, name)!r} is unknown, choose least or most"
                )
        self.reference.validate(f"{prefix}.reference")


@dataclass
class FrontiersConfig(TaskConfig):
    """Measures several frontiers and shows them side by side."""

    device: str = "cpu"  # of all runs
    parts: dict[str, PartConfig | None] = field(default_factory=dict)  # by name; null: left out
    # directory of the runs, which several runs of this task may share; null: this run's own
    runs: str | None = None
    config_dir: str | None = None  # directory of your own whose exp/ holds further recipes

    @property
    def wanted(self) -> dict[str, PartConfig]:
        """The parts that are not left out."""
        return {name: part for name, part in self.parts.items() if part is not None}

    def validate(self) -> None:
        if not self.wanted:
            raise UserError("parts is empty: give at least one part a recipe, as in frontier_all")
        for name, part in self.wanted.items():
            if not NAME.fullmatch(name):
                raise UserError(
                    f"parts.{name}: names of parts are of letters, digits and underscores"
                )
            part.validate(f"parts.{name}")


TASKS.register("frontiers", config=FrontiersConfig, entry="adaptive.core.frontiers.stages:stages")
