"""Configuration of Quadformer's tasks: plain dataclasses, free of torch; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.budget import Budget
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Axis, TaskConfig
from adaptive.quadformer.settings import (
    AugmentConfig,
    BudgetConfig,
    EvaluateConfig,
    ImageData,
    ModelConfig,
    TrainConfig,
    positive,
)

SAME = "same"
PHOTOS = ("astronaut", "chelsea", "coffee", "motorcycle", "rocket")  # that scikit-image ships

__all__ = [
    "PHOTOS",
    "SAME",
    "QuadformerDemoConfig",
    "QuadformerEvalConfig",
    "QuadformerTrainConfig",
]


@dataclass
class QuadformerTrainConfig(TaskConfig):
    """Train a mixed-resolution ViT, or a baseline of it, on labelled images."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: ImageData = field(default_factory=ImageData)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def validate(self) -> None:
        for part in (self.model, self.data, self.augment, self.train, self.evaluate):
            part.validate()
        for split in ("train", "valid"):
            if not getattr(self.data, split):
                raise UserError(
                    f"data.{split} is empty: name a folder of images, a .tar of one, timm:NAME or "
                    "hf:NAME"
                )
        if self.data.train_maps is not None and self.model.kind != "quadformer":
            raise UserError(
                f"data.train_maps chooses the patches of model.kind=quadformer, not of "
                f"{self.model.kind}: set it to null"
            )
        too_many = [n for n in self.train.num_tokens if n > self.model.full_grid]
        if too_many:
            raise UserError(
                f"train.num_tokens: {too_many[0]} is more than the {self.model.full_grid} patches "
                f"of {self.model.patch} pixels in an image of {self.model.size}"
            )


@dataclass
class QuadformerEvalConfig(TaskConfig):
    """Accuracy, measured speed and FLOPs of a model at one number of tokens, with baselines."""

    # directory of a finished quadformer_train run; null: a model as `model` says, with the weights
    # that model.init says
    checkpoint: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    num_tokens: int | None = 100  # patches, without class and register tokens; null: see budget
    budget: BudgetConfig = field(default_factory=BudgetConfig)  # chooses num_tokens
    prior: str | None = None  # another one than the model was trained with
    # name in BASELINES to the directory of a quadformer_train run, or `same`: this model's weights
    baselines: dict[str, str] = field(default_factory=dict)
    # data.valid=null: agreement with the full grid on scikit-image's photographs, for accuracy
    data: ImageData = field(default_factory=ImageData)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def validate(self) -> None:
        for part in (self.model, self.data, self.evaluate):
            part.validate()
        if self.num_tokens is not None and self.num_tokens < 1:
            raise UserError(f"num_tokens={self.num_tokens} must be at least 1")
        latency = self.budget.latency
        if (self.num_tokens is None) == (latency is None):
            given = f"both {self.num_tokens} and {latency} are" if latency else "neither is"
            raise UserError(
                f"num_tokens or budget.latency says what to spend, but {given} given: set one of "
                "them, and the other to null"
            )
        if latency is not None:
            Budget({"latency": latency})  # refuses what is no latency
            if not self.evaluate.speed_batch:
                raise UserError(
                    f"budget.latency={latency} is of a forward of evaluate.speed_batch images: set "
                    "that above 0"
                )
        for name in ("shift", "shared"):
            if self.data.valid is None and (value := getattr(self.evaluate, name)):
                raise UserError(
                    f"evaluate.{name}={str(value).lower()} is of the images in data.valid, and "
                    "there are none: name some, or leave it out"
                )
        nothing = self.data.valid is None and self.checkpoint is None
        if nothing and not self.evaluate.speed_batch:
            raise UserError(
                "nothing is left to measure: name a checkpoint, images in data.valid, or set "
                "evaluate.speed_batch above 0"
            )


@dataclass
class QuadformerDemoConfig(TaskConfig):
    """Shows what a trained model does with photographs, and what each budget costs on this CPU."""

    # directory of a finished quadformer_train run, or zoo:NAME
    checkpoint: str = "zoo:quadformer-tiny"
    photos: list[str] = field(default_factory=lambda: list(PHOTOS))  # of scikit-image
    # budgets that are shown, besides the full grid
    num_tokens: list[int] = field(default_factory=lambda: [49, 64, 100, 145])
    batch: int = 8  # images at a time for images/s
    seconds: float = 20.0  # for the timing of all budgets together
    threads: int = 1  # of the CPU

    def validate(self) -> None:
        unknown = [name for name in self.photos if name not in PHOTOS]
        if unknown or not self.photos:
            raise UserError(f"photos={self.photos}: choose at least one of {', '.join(PHOTOS)}")
        if not self.num_tokens or min(self.num_tokens) < 1:
            raise UserError(f"num_tokens={self.num_tokens} must list numbers of tokens above 0")
        positive("", self, "batch", "seconds", "threads")


TASKS.register(
    "quadformer_demo",
    config=QuadformerDemoConfig,
    entry="adaptive.quadformer.demo:stages",
)
TASKS.register(
    "quadformer_train",
    config=QuadformerTrainConfig,
    entry="adaptive.quadformer.pipeline:train_stages",
)
TASKS.register(
    "quadformer_eval",
    config=QuadformerEvalConfig,
    entry="adaptive.quadformer.pipeline:eval_stages",
    cost=(Axis("latency.measured"), Axis("images_per_second", more=True), Axis("gmacs")),
    quality=(Axis("accuracy", more=True), Axis("agreement", more=True)),
)
