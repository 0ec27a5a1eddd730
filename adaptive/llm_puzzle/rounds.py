"""Iterative Puzzle: go part of the way, score again around the child that is there, go on.

Scores of single replacements in the parent add up well while few blocks are replaced. So a search
in R rounds moves towards the budget in R equal factors and looks again after each:

    scores -> search_1 -> scores_1 -> search_2 -> scores_2 -> ... -> search

``search_r`` takes the best child at the limits of round r, ``scores_r`` puts it together from the
library, distils it globally on a part of the tokens (``search.heal``) and measures what replacing
one more of its blocks would change, the parent staying what it is compared with
(:func:`~adaptive.llm_puzzle.score.score_library`). Each child goes on from the weights of the one
before, in the halves that they have in common. All options stay open, the parent's own included, so
a round may take back what an earlier one did. The last search meets the budget itself. Variants are
those that were distilled on the parent's activations.

A block may be missed more, or less, once the others have learnt to do without those that are gone,
and what counts is the child after distillation; that is why partial children are healed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptive.core import Budget, ChoiceProblem, UserError
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.gkd.stage import Texts, distil, unfinished
from adaptive.llm_puzzle.isotonic import Repair, repair
from adaptive.llm_puzzle.library import HealedLibrary, Library
from adaptive.llm_puzzle.puzzle import Puzzle, read_json, rows_of
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.score import METRICS, LayerScores, compare, load_scores, score_library
from adaptive.llm_puzzle.settings import GKDConfig, SearchConfig
from adaptive.llm_puzzle.space import LayerSpace

HEALED = "healed"  # directory of a partial child after distillation


def part_way(budget: Budget, problem: ChoiceProblem, share: float) -> Budget:
    """The absolute limits after a part of the way from the reference to the budget.

    The way is geometric: at ``share`` 1/3 of a budget of 1.728x the latency limit is that of 1.2x.
    An upper limit that the reference meets, and every lower limit, holds from the beginning.

    Args:
        budget: at the end of the way.
        problem: gives the reference.
        share: of the way, 0 to 1.
    """
    limits: dict[str, Any] = {}
    for name, (low, high) in budget.resolve(problem).items():
        start = problem.reference_cost[name]
        if high is not None and high < start:
            high = start ** (1 - share) * high**share
        limits[name] = {"min": low, "max": high}
    return Budget(limits)


@dataclass(frozen=True)
class Scored:
    """Scores with the model that they were taken around.

    Attributes:
        scores: of every layer.
        blocks: of that model; the parent's own in the first round.
        own: the model's own divergence from the parent by metric, 0 for the parent.
    """

    scores: list[LayerScores]
    blocks: Sequence[BlockOption]
    own: dict[str, float]

    @staticmethod
    def load(directory: Path, space: Sequence[LayerSpace]) -> Scored:
        """Reads what a scores stage wrote."""
        scores, path = load_scores(directory), directory / "child.json"
        if not path.is_file():
            return Scored(scores, [layer.parent for layer in space], dict.fromkeys(METRICS, 0.0))
        data = json.loads(path.read_text(encoding="utf-8"))
        blocks = [BlockOption.from_config(entry) for entry in data["blocks"]]
        return Scored(scores, blocks, {name: data[name] for name in METRICS})

    def repaired(self, space: Sequence[LayerSpace], metric: str, wanted: bool = True) -> Repair:
        """The scores with monotone ladders, or as they are."""
        if not wanted:
            return Repair(self.scores, 0, 0.0)
        own = [layer.index(block) for layer, block in zip(space, self.blocks, strict=True)]
        return repair(self.scores, metric, own)

    def predicted(self, space: Sequence[LayerSpace], blocks: Sequence[BlockOption]) -> float:
        """KL from the parent of a child, if what was measured one by one adds up."""
        return self.own["kl"] + sum(
            float(score.values_AF["kl"][layer.index(block)])
            for score, layer, block in zip(self.scores, space, blocks, strict=True)
        )


def scores_stage(config: SearchConfig, coupled: bool = False) -> str:
    """The stage whose scores the last search goes by.

    Args:
        config: says how many rounds there are.
        coupled: whether pairs are trained together after a first search.
    """
    if coupled:
        return "scores_coupled"
    return "scores" if config.rounds == 1 else f"scores_{config.rounds - 1}"


def search_before(config: SearchConfig, coupled: bool = False) -> str | None:
    """The search that the last one goes on from, None if it is the first."""
    if coupled:
        return "search_decoupled"
    return None if config.rounds == 1 else f"search_{config.rounds - 1}"


def healing(config: PuzzleConfig) -> GKDConfig | None:
    """How partial children are distilled before they are scored around; None: not at all."""
    gkd = config.gkd
    tokens = round(config.search.heal * gkd.tokens) if config.search.rounds > 1 else 0
    return replace(gkd, tokens=tokens, long=replace(gkd.long, tokens=0)) if tokens else None


def library_after(run: Puzzle, ctx: StageContext, index: int) -> Library:
    """What the child after round ``index`` is made of.

    Args:
        run: the run.
        ctx: of a stage that has the library and, if children are healed, the scores of that round.
        index: 0 before the first.
    """
    library, config = run.library(ctx), run.config
    last = index == config.search.rounds - 1
    if index == 0 or healing(config) is None or (last and not config.search.carry):
        return library
    return HealedLibrary(ctx.input(f"scores_{index}") / HEALED, library)


def rescore(run: Puzzle, ctx: StageContext, index: int) -> None:
    """Scores every option again, around the child of round ``index``, which is distilled first.

    Summary: ``rounds.INDEX.kl`` (KL of that child from the parent in nats a token, measured on the
    tokens that scores are taken on), ``rounds.INDEX.kl.predicted`` and
    ``rounds.INDEX.speedup.predicted``. Those of the last round are ``additivity.measured_kl``
    (repeated as ``rounds.R.kl``), ``child.kl.predicted`` and ``speedup.predicted``.
    """
    parent, config = run.parent(ctx.device).model, run.config.score
    found = json.loads((ctx.input(f"search_{index}") / "step.json").read_text(encoding="utf-8"))
    blocks = [BlockOption.from_config(entry) for entry in found["blocks"]]
    library, seen = run.library(ctx), 0
    if heal := healing(run.config):
        seen = _heal(run, ctx, blocks, index, heal)
        library = HealedLibrary(ctx.dir / HEALED, library)
    child = realise_child(parent, blocks, library)
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors").first(config.tokens)
    rows = rows.to(parent.device)
    own = compare(parent, child, rows, config.batch_tokens)
    about = {"blocks": found["blocks"], "tokens": seen}
    atomic_write_json(ctx.dir / "child.json", {**about, **own})
    score_library(
        child,
        run.space,
        library,
        rows,
        config,
        ctx.dir,
        track=lambda layers, total: ctx.track(layers, total, "scoring", unit="layer"),
        parent=parent,
        store=run.store(ctx, run.parent(ctx.device), rows),
        ranks=ctx.ranks,
    )
    ctx.summary(
        {
            f"rounds.{index}.kl": own["kl"],
            f"rounds.{index}.kl.predicted": found["kl.predicted"],
            f"rounds.{index}.speedup.predicted": found["speedup"],
        }
    )


def _heal(
    run: Puzzle, ctx: StageContext, blocks: Sequence[BlockOption], index: int, config: GKDConfig
) -> int:
    """Distils a partial child globally and writes it, unless an earlier attempt did.

    Returns:
        Tokens that it has seen, those of the rounds before included.

    Raises:
        UserError: the tokens are too few for every child of the run, or training diverged.
    """
    done = ctx.dir / "healed.json"
    if not ctx.ranks.broadcast(done.is_file()):
        parent, train = run.parent(ctx.device).model, rows_of(ctx, "train")
        _check_steps(run.config, config, train)
        found = distil(
            ctx,
            lambda: realise_child(parent, blocks, library_after(run, ctx, index - 1)),
            parent,
            Texts(train, rows_of(ctx, "validation")),
            config,
            run.config.evaluate.batch_tokens,
            run.config.seed + index,  # another order than of the children before and after it
        )
        if ctx.ranks.main:
            before = 0
            if index > 1:
                before = read_json(ctx.input(f"scores_{index - 1}") / "healed.json")["tokens"]
            save_child(found.child, None, ctx.dir / HEALED)
            atomic_write_json(done, {"tokens": before + found.tokens})
    if ctx.ranks.main:
        unfinished(ctx, config).discard()
    ctx.ranks.barrier()
    return read_json(done)["tokens"]


def _check_steps(config: PuzzleConfig, heal: GKDConfig, train: Rows) -> None:
    """Partial children train for whole steps, and have to leave the last one at least one."""
    steps, each = (steps_for(g.tokens, train, g.batch) for g in (config.gkd, heal))
    partial = config.search.rounds - 1
    if config.search.carry and each * partial >= steps:
        raise UserError(
            f"gkd.tokens={config.gkd.tokens} are {steps} steps of {config.gkd.batch} documents, "
            f"too few for {partial} partial children of at least one step and the last child: "
            "raise it, lower search.rounds, or set search.heal=0"
        )
