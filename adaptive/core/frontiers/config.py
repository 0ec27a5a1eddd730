"""Configuration of the task `frontiers`; free of torch."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from adaptive.core.collect.axes import BEST
from adaptive.core.errors import UserError
from adaptive.core.run.atomic import flat
from adaptive.core.run.task import TASKS, TaskConfig

NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


@dataclass
class ReferenceConfig:
    """What the costs and the qualities of a part are relative to: numbers that every run measures
    of it too, or those of a run of its own."""

    # numbers of the runs' summaries; null: the part's own, of the run that `set` makes
    cost: str | None = None
    quality: str | None = None
    # settings of that run, in the place of the part's `over`; null: there is no such run
    set: dict[str, Any] | None = None

    def validate(self, prefix: str) -> None:
        """Raises UserError unless it says both a cost and a quality, or nothing."""
        named = [name for name in ("cost", "quality") if getattr(self, name) is not None]
        if self.set is None and len(named) == 1:
            lacking = "quality" if named == ["cost"] else "cost"
            raise UserError(
                f"{prefix}.{named[0]}={getattr(self, named[0])} leaves the {lacking} open: name "
                f"{prefix}.{lacking} too, or a run that has it in {prefix}.set"
            )
        if self.set is not None and len(named) == 2:
            raise UserError(
                f"{prefix}.set makes a run that nothing asks for, as every run measures "
                f"{self.cost} and {self.quality}: set it to null"
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
        self._refuse_set_twice(prefix)
        for name in ("cost_best", "quality_best"):
            if getattr(self, name) not in BEST:
                raise UserError(
                    f"{prefix}.{name}={getattr(self, name)!r} is unknown, choose least or most"
                )
        self.reference.validate(f"{prefix}.reference")

    def _refuse_set_twice(self, prefix: str) -> None:
        """Raises UserError where ``set`` and ``over`` say the same, or one a part of the other."""
        changed = [item for value in self.values for item in flat({self.over: value}).items()]
        for setting, shared in flat(self.set).items():
            ours = setting.lstrip("+~")
            for key, value in changed:
                theirs = key.lstrip("+")
                # A word may choose from a group, whose settings the other one changes.
                above = theirs.startswith(f"{ours}.") and not _may_choose(setting, shared)
                below = ours.startswith(f"{theirs}.") and not _may_choose(key, value)
                if ours == theirs or above or below:
                    raise UserError(
                        f"{prefix}.set.{setting} is what {prefix}.over changes: leave it out"
                    )


def _may_choose(setting: str, value: Any) -> bool:
    """Whether a value leaves room for settings below it: a word of a group, an empty mapping."""
    return not setting.startswith("~") and isinstance(value, (str, dict))


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
