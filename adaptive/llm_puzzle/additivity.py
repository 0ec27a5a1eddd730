"""How additive the scores were: a search adds them up, so what does the child really lose?

Two checks, on the very tokens that were scored, before the child is distilled: its KL from the
parent against the sum of its layers' scores, and the KL of replacing two layers of the parent at
once against the sum of replacing either.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.rounds import Scored, library_after, scores_stage
from adaptive.llm_puzzle.score import compare

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle

Pair = tuple[int, int]


def check(run: Puzzle, ctx: StageContext) -> None:
    """Compares sums of scores with what is measured.

    Summary: ``additivity.predicted_kl`` (after several rounds: the last partial child's measured KL
    and the changes scored around it), ``additivity.measured_kl``, both in nats a token, and with
    ``search.interactions`` ``additivity.pairs.count`` and ``additivity.pairs.mean_ratio``.
    """
    parent, config = run.parent(ctx.device).model, run.config
    chosen = json.loads((ctx.input("search") / "architectures.json").read_text(encoding="utf-8"))
    blocks = [BlockOption.from_config(entry) for entry in chosen["child"]]
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors")
    rows = rows.first(config.score.tokens).to(parent.device)

    def kl(made_of: Sequence[BlockOption], library: Library) -> float:
        child = realise_child(parent, made_of, library)
        return compare(parent, child, rows, config.score.batch_tokens)["kl"]

    scored = Scored.load(ctx.input(scores_stage(config.search, run.coupled)), run.space)
    own = [layer.parent for layer in run.space]
    pairs = interactions(
        own,
        blocks,
        random_pairs(own, blocks, config.search.interactions, ctx.seed),
        lambda replaced: kl(replaced, run.library(ctx)),
        track=lambda items, total: ctx.track(items, total, "pairs of layers", unit="pair"),
    )
    result: dict[str, Any] = {
        "predicted_kl": scored.predicted(run.space, blocks),
        "measured_kl": kl(blocks, library_after(run, ctx, config.search.rounds - 1)),
    }
    atomic_write_json(ctx.dir / "additivity.json", {**result, "pairs": pairs})
    ctx.summary({f"additivity.{name}": value for name, value in result.items()})
    ctx.summary({f"rounds.{config.search.rounds}.kl": result["measured_kl"]})
    if config.search.interactions:
        ratios = [pair["measured"] / pair["predicted"] for pair in pairs if pair["predicted"] > 0]
        ctx.summary(
            {
                "additivity.pairs.count": len(pairs),
                "additivity.pairs.mean_ratio": float(np.mean(ratios)) if ratios else None,
            }
        )


def random_pairs(
    own: Sequence[BlockOption], blocks: Sequence[BlockOption], count: int, seed: int
) -> list[Pair]:
    """Distinct random pairs of replaced layers, or all where there are no more than ``count``."""
    replaced = [i for i, (a, b) in enumerate(zip(own, blocks, strict=True)) if a != b]
    every = list(combinations(replaced, 2))
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[i] for i in sorted(chosen.tolist())]


def interactions(
    own: Sequence[BlockOption],
    blocks: Sequence[BlockOption],
    pairs: Sequence[Pair],
    measure: Callable[[Sequence[BlockOption]], float],
    track: Callable[[Iterable[Pair], int], Iterable[Pair]] = lambda x, _: x,
) -> list[dict[str, Any]]:
    """Measures both replacements of each pair at once, and each by itself.

    Args:
        own: the parent's blocks.
        blocks: the child's.
        pairs: of layers.
        measure: KL from the parent of a model of these blocks.
        track: progress over pairs.

    Returns:
        Records with ``layers``, ``predicted`` (sum of the two by themselves) and ``measured``.
    """
    alone: dict[int, float] = {}

    def replaced(*layers: int) -> float:
        return measure([blocks[i] if i in layers else block for i, block in enumerate(own)])

    records = []
    for pair in track(pairs, len(pairs)):
        for layer in pair:
            if layer not in alone:
                alone[layer] = replaced(layer)
        predicted = sum(alone[layer] for layer in pair)
        records.append({"layers": list(pair), "predicted": predicted, "measured": replaced(*pair)})
    return records
