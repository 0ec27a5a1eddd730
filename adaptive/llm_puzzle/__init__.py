"""Puzzle: a faster language model out of a slower one.

The steps, as functions: :func:`load_parent`, :func:`sample_rows` (its text), :func:`search_space`,
:func:`build_variants` (a :class:`Library`), :func:`score_library`, :class:`Pricing` (a choice
problem for ``adaptive.core``), :func:`realise_child`, :func:`verify_model` and
:func:`distill_globally`. ``experiments/notebooks/puzzle.py`` takes them one after the other.

Names below are imported when they are first used, so that the package's configuration imports
neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive._lazy import lazy

if TYPE_CHECKING:
    from adaptive.llm_puzzle.data import Rows, sample_rows
    from adaptive.llm_puzzle.distill import build_variants
    from adaptive.llm_puzzle.gkd import distill_globally
    from adaptive.llm_puzzle.library import Library
    from adaptive.llm_puzzle.parent import Parent, load_parent
    from adaptive.llm_puzzle.prices import Pricing, blocks_of
    from adaptive.llm_puzzle.realise import realise_child
    from adaptive.llm_puzzle.score import compare, score_library
    from adaptive.llm_puzzle.settings import (
        CostConfig,
        DistillConfig,
        GKDConfig,
        ScoreConfig,
        SpaceConfig,
    )
    from adaptive.llm_puzzle.space import LayerSpace, search_space
    from adaptive.llm_puzzle.verify import measure_pair, verify_allocation, verify_model

__all__ = [
    "CostConfig",
    "DistillConfig",
    "GKDConfig",
    "LayerSpace",
    "Library",
    "Parent",
    "Pricing",
    "Rows",
    "ScoreConfig",
    "SpaceConfig",
    "blocks_of",
    "build_variants",
    "compare",
    "distill_globally",
    "load_parent",
    "measure_pair",
    "realise_child",
    "sample_rows",
    "score_library",
    "search_space",
    "verify_allocation",
    "verify_model",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CostConfig": "settings",
        "DistillConfig": "settings",
        "GKDConfig": "settings",
        "LayerSpace": "space",
        "Library": "library",
        "Parent": "parent",
        "Pricing": "prices",
        "Rows": "data",
        "ScoreConfig": "settings",
        "SpaceConfig": "settings",
        "blocks_of": "prices",
        "build_variants": "distill",
        "compare": "score",
        "distill_globally": "gkd",
        "load_parent": "parent",
        "measure_pair": "verify",
        "realise_child": "realise",
        "sample_rows": "data",
        "score_library": "score",
        "search_space": "space",
        "verify_allocation": "verify",
        "verify_model": "verify",
    },
)
