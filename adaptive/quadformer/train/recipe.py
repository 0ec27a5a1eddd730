"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from adaptive.core.errors import UserError
from adaptive.quadformer.settings import AugmentConfig, ModelConfig, TrainConfig


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        model, augment, train: as in the configuration.
        seed: of weights, order, augmentation and budgets.
    """

    model: ModelConfig
    augment: AugmentConfig
    train: TrainConfig
    seed: int

    @property
    def budgets(self) -> list[int]:
        """Numbers of tokens that are trained."""
        return self.train.num_tokens or [self.full_grid]

    @property
    def full_grid(self) -> int:
        """Tokens of an image whose patches are all of the finest size."""
        return self.model.full_grid

    def check_budgets(self, model: nn.Module) -> None:
        """Refuses numbers of tokens that a model of these settings cannot spend.

        Raises:
            UserError: names one, and what to choose instead.
        """
        wrapper: Any = model
        for tokens in self.budgets:
            try:
                wrapper.check_tokens(tokens)
            except UserError as error:
                raise UserError(f"train.{error}") from None
