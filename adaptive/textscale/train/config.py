"""Configuration of ``textscale_train``: a dataclass, free of torch; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Axis, TaskConfig
from adaptive.textscale.train.settings import (
    DataConfig,
    DetectConfig,
    NetConfig,
    SampleConfig,
    TrainConfig,
)


@dataclass
class TextTrainConfig(TaskConfig):
    """Train the text detection network on annotated images."""

    net: NetConfig = field(default_factory=NetConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)

    def validate(self) -> None:
        for part in (self.net, self.data, self.sample, self.train, self.detect):
            part.validate()
        if self.train.mining and self.net.init in (None, "timm"):
            raise UserError(
                f"train.mining={self.train.mining} looks for what a trained network misses: name "
                "one in net.init, or set it to 0"
            )


TASKS.register(
    "textscale_train",
    config=TextTrainConfig,
    entry="adaptive.textscale.train.pipeline:train_stages",
    cost=(Axis("net.params"),),
    quality=(Axis("f", more=True),),
)
