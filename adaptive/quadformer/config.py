"""Configuration of Quadformer's tasks: plain dataclasses, free of torch; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, TaskConfig
from adaptive.quadformer.settings import (
    AugmentConfig,
    EvaluateConfig,
    ImageData,
    ModelConfig,
    TrainConfig,
)

SAME = "same"

__all__ = ["SAME", "QuadformerEvalConfig", "QuadformerTrainConfig"]


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
    num_tokens: int = 100  # patches, without class and register tokens
    prior: str | None = None  # another one than the model was trained with
    # name in BASELINES to the directory of a quadformer_train run, or `same`: this model's weights
    baselines: dict[str, str] = field(default_factory=dict)
    data: ImageData = field(default_factory=ImageData)  # data.valid=null: accuracy is not measured
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def validate(self) -> None:
        for part in (self.model, self.data, self.evaluate):
            part.validate()
        if self.num_tokens < 1:
            raise UserError(f"num_tokens={self.num_tokens} must be at least 1")
        if self.data.valid is None and not self.evaluate.speed_batch:
            raise UserError(
                "nothing is left to measure: name images in data.valid, or set "
                "evaluate.speed_batch above 0"
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
)
