"""Replace-one-block scores at several numbers of tokens: what one variant costs the parent.

Everything is held against the parent at its full grid, so that what fewer tokens cost and what
cheaper blocks cost are in one unit: ``base`` is the parent's own loss at a number of tokens, and a
score what one replacement adds to it, KL(full grid || replaced) - KL(full grid || parent).
Below the full grid it may be negative.

Shapes: B images, K classes, L tokens, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptive.core.blockwise.isotonic import monotone
from adaptive.quadformer.evaluate import autocast
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.puzzle.library import Library
from adaptive.quadformer.puzzle.local import replaced
from adaptive.quadformer.puzzle.space import Group
from adaptive.quadformer.puzzle.trace import Trace, kl


@dataclass(frozen=True)
class Scores:
    """Of all options at one number of tokens.

    Attributes:
        tokens: of each image.
        images: scored on.
        base: by metric, the parent's own loss at so many tokens.
        values: by metric, a list a group of a number an option, 0 for the parent's own.
    """

    tokens: int
    images: int
    base: dict[str, float]
    values: dict[str, list[list[float]]]

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def load(path: Path) -> Scores:
        return Scores(**json.loads(path.read_text(encoding="utf-8")))


@torch.no_grad()
def score_at(
    model: Quadformer,
    space: Sequence[Group],
    library: Library,
    batches: Iterable[tuple[Tensor, Tensor]],
    tokens: int,
    amp: bool,
) -> Scores:
    """Scores every option; what comes before a replaced block is computed once.

    Args:
        model: the parent, in evaluation mode.
        space: groups.
        library: holds their variants.
        batches: normalised images and labels.
        tokens: of each image.
        amp: bfloat16 autocast on a GPU.
    """
    blocks = list(model.vit.blocks)
    halves = {
        (g, k): library.load(blocks[g.block], g, size) if (size := g.sizes[k]) else None
        for g in space
        for k in range(1, len(g.sizes))
    }
    sums = {name: {key: 0.0 for key in halves} for name in ("kl", "accuracy")}
    base, count = {"kl": 0.0, "accuracy": 0.0}, 0
    for image_BCHW, label_B in batches:
        with autocast(str(image_BCHW.device), amp):
            full_BK = model(image_BCHW, num_tokens=model.geometry.cells)
            trace = Trace(model, image_BCHW, tokens)
            own_kl, own_right = _compare(full_BK, trace.logits_BK, label_B)
            base["kl"] += own_kl
            base["accuracy"] += _compare(full_BK, full_BK, label_B)[1] - own_right
            mid: tuple[int, Tensor] | None = None
            for (group, k), half in halves.items():
                if mid is None or mid[0] != group.block:
                    mid = group.block, trace.attended(group.block)
                y_BLD = replaced(trace, group, half, mid[1])
                found, right = _compare(full_BK, trace.logits(group.block, y_BLD), label_B)
                sums["kl"][group, k] += found - own_kl
                sums["accuracy"][group, k] += own_right - right
        count += len(image_BCHW)
    unit = {"kl": 1 / count, "accuracy": 100 / count}
    values = {
        name: [[0.0, *(found[g, k] * unit[name] for k in range(1, len(g.sizes)))] for g in space]
        for name, found in sums.items()
    }
    return Scores(tokens, count, {name: base[name] * unit[name] for name in base}, values)


@torch.no_grad()
def measured_loss(
    parent: Quadformer,
    child: Quadformer,
    batches: Iterable[tuple[Tensor, Tensor]],
    tokens: int,
    amp: bool,
) -> dict[str, float]:
    """The metrics of a whole child against the parent at its full grid, as scores have them."""
    total, lost, count = 0.0, 0.0, 0
    for image_BCHW, label_B in batches:
        with autocast(str(image_BCHW.device), amp):
            full_BK = parent(image_BCHW, num_tokens=parent.geometry.cells)
            found, right = _compare(full_BK, child(image_BCHW, num_tokens=tokens), label_B)
        total += found
        lost += _compare(full_BK, full_BK, label_B)[1] - right
        count += len(image_BCHW)
    return {"kl": total / count, "accuracy": 100 * lost / count}


def repaired(scores: Scores, metric: str) -> list[list[float]]:
    """Scores of which none falls where an option gets cheaper; none, the cheapest, comes last."""
    return [
        monotone(np.array([row]), (0, 0))[0].tolist() if len(row) > 1 else row
        for row in scores.values[metric]
    ]


def _compare(reference_BK: Tensor, logits_BK: Tensor, label_B: Tensor) -> tuple[float, float]:
    """Summed KL from the reference, and how many images are classified rightly."""
    right = (logits_BK.argmax(1) == label_B).sum()
    return float(kl(reference_BK, logits_BK).double().sum()), float(right)
