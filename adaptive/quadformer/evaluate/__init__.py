"""Accuracy, FLOPs and measured speed of models at a number of tokens."""

from adaptive.quadformer.evaluate.accuracy import accuracy, autocast
from adaptive.quadformer.evaluate.speed import Speed, make_clock, measure_speed

__all__ = ["Speed", "accuracy", "autocast", "make_clock", "measure_speed"]
