"""Isotonic repair of noisy ladders: on a ladder, a cheaper option never scores better.

Local distillation is short and scores are taken on few tokens, so a narrower FFN may score better
than a wider one by chance, and a solver that trusts it collects such accidents. In each layer the
scores of the ladder (the parent's KV heads and fewer, the parent's FFN width and narrower) are
replaced by the nearest scores, in least squares, that do not fall when the option gets cheaper.

Shapes: A attention options and F FFN options of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from adaptive.core.blockwise.isotonic import monotone
from adaptive.llm_puzzle.score import LayerScores


@dataclass(frozen=True)
class Repair:
    """Scores after the repair.

    Attributes:
        scores: of every layer; only the metric that was asked for has changed.
        entries: pairs of options whose score has changed.
        largest: the largest change, in the metric's unit.
    """

    scores: list[LayerScores]
    entries: int
    largest: float


def repair(
    scores: Sequence[LayerScores], metric: str, own: Sequence[tuple[int, int]] | None = None
) -> Repair:
    """Makes the ladders of every layer monotone; linear and no-op options are left alone.

    Args:
        scores: of every layer.
        metric: which of the scores.
        own: indices (attention, FFN) in each layer of the pair that scores 0 by definition, which
            is the parent's own unless the scores are taken around a child.
    """
    repaired, changes = [], []
    for i, layer in enumerate(scores):
        rows, columns = ladder(layer.attention, "kv"), ladder(layer.ffn, "ffn")
        a, f = own[i] if own is not None else (0, 0)
        zero = (rows.index(a), columns.index(f)) if a in rows and f in columns else None
        table_AF = layer.values_AF[metric].copy()
        if rows and columns:
            part = np.ix_(rows, columns)
            table_AF[part] = monotone(table_AF[part], zero)
        change_AF = np.abs(table_AF - layer.values_AF[metric])
        changes.append(change_AF[change_AF > 0])
        repaired.append(replace(layer, values_AF={**layer.values_AF, metric: table_AF}))
    changed = np.concatenate(changes) if changes else np.zeros(0)
    return Repair(repaired, len(changed), float(changed.max(initial=0.0)))


def ladder(labels: Sequence[str], prefix: str) -> list[int]:
    """Indices of the options that are ``prefix`` and a number, in their order: dearest first."""
    return [i for i, label in enumerate(labels) if re.fullmatch(rf"{prefix}\d+", label)]
