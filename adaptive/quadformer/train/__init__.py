"""Training of mixed-resolution ViTs and their baselines."""

from adaptive.quadformer.train.recipe import Recipe
from adaptive.quadformer.train.trainer import CHECKPOINT, Trainer

__all__ = ["CHECKPOINT", "Recipe", "Trainer"]
