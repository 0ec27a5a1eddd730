"""Accuracy, FLOPs and measured speed of models at a number of tokens."""

from adaptive.quadformer.evaluate.accuracy import accuracy, autocast
from adaptive.quadformer.evaluate.speed import Speed, measure_speed

__all__ = ["Speed", "accuracy", "autocast", "measure_speed"]
