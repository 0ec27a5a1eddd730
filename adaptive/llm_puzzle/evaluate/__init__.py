"""How good a model is, and how near to its parent."""

from __future__ import annotations

from adaptive.llm_puzzle.evaluate.harness import benchmark, check_installed
from adaptive.llm_puzzle.evaluate.positions import Bucket, by_position
from adaptive.llm_puzzle.evaluate.quality import Quality, evaluate

__all__ = ["Bucket", "Quality", "benchmark", "by_position", "check_installed", "evaluate"]
