"""Training of mixed-resolution ViTs and their baselines."""

from adaptive.quadformer.train.trainer import CHECKPOINT, Recipe, Trainer

__all__ = ["CHECKPOINT", "Recipe", "Trainer"]
