"""What several runs found, in one table, one frontier and one page."""

from __future__ import annotations

from adaptive.core.collect.config import CollectConfig
from adaptive.core.collect.gather import Collected, Run, gather
from adaptive.core.collect.pareto import not_dominated

__all__ = ["CollectConfig", "Collected", "Run", "gather", "not_dominated"]
