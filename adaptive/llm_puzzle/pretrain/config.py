"""Configuration of the task ``train_parent``; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, TaskConfig
from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule, Source


@dataclass
class TextData:
    """The corpora, by a name of your choice that the results carry.

    Training and validation text are separate files on purpose: nothing is split off at random. A
    recipe adds texts; the command line changes them (``data.train.NAME.path=...``) or leaves them
    out (``~data.train.NAME``).
    """

    root: str = "."  # directory that the sources' relative paths start from
    train: dict[str, Source] = field(default_factory=dict)
    valid: dict[str, Source] = field(default_factory=dict)


@dataclass
class TrainParentConfig(TaskConfig):
    """Train a small Llama from scratch on text files."""

    data: TextData = field(default_factory=TextData)
    shape: ParentShape = field(default_factory=ParentShape)
    schedule: Schedule = field(default_factory=Schedule)

    def validate(self) -> None:
        self.shape.validate()
        self.schedule.validate()
        for split in ("train", "valid"):
            sources: dict[str, Source] = getattr(self.data, split)
            if not sources:
                raise UserError(
                    f"data.{split} names no text: the recipe needs at least one, as in "
                    "experiments/exp/train_parent.yaml"
                )
            for name, source in sources.items():
                if not source.path:
                    raise UserError(f"data.{split}.{name}.path is empty: name a text file")
                if not source.documents:
                    raise UserError(
                        f"data.{split}.{name}.documents is empty: write passages, stories or the "
                        "text between two documents"
                    )
                if source.repeat <= 0:
                    raise UserError(
                        f"data.{split}.{name}.repeat={source.repeat} must be positive: remove the "
                        "source to leave it out"
                    )


TASKS.register(
    "train_parent",
    config=TrainParentConfig,
    entry="adaptive.llm_puzzle.pretrain.stages:stages",
)
