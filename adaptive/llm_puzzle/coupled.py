"""Coupled local distillation: both halves of a pair trained together (Puzzle, section 3).

Halves that were trained apart, each beside the parent's other half, meet for the first time in the
child. Training every pair instead would take the product of attention and FFN options in each
layer. So a first search says which pairs matter, and those alone are trained together, from where
their halves are, towards the output of the parent's block:

    scores -> search_decoupled -> coupled -> scores_coupled -> search

``search_decoupled`` reduces the space, ``coupled`` trains, ``scores_coupled`` scores the pairs that
are left with their new weights, and the last search chooses among these. ``coupled_kl`` says what
it brought.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core import Budget
from adaptive.core.blockwise.search import latency_points
from adaptive.core.blockwise.search import search as search_child
from adaptive.core.run import Stage, StageContext, atomic_write_json
from adaptive.llm_puzzle import deploy, variants
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.prices import blocks_of
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.rounds import Scored
from adaptive.llm_puzzle.score import compare, score_library
from adaptive.llm_puzzle.space import LayerSpace

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle

Pairs = list[list[BlockOption]]
"""Some pairs of options of every layer."""


def stages(run: Puzzle, identity: Any, budget: Any, first: Any) -> list[Stage]:
    """What stands between the scores and the last search.

    Args:
        run: the run.
        identity: of the parent, as of the other stages.
        budget: what searches depend on beside it.
        first: the search settings that the first search depends on.
    """
    config = run.config
    settings = [config.score.metric, first, config.search.frontier, config.distill.coupled_pairs]
    return [
        Stage(
            "search_decoupled",
            partial(reduce, run),
            ("scores", "costs"),
            [identity, budget, settings, run.restriction],
        ),
        Stage(
            "coupled",
            partial(train, run),
            ("calibration", "library", "search_decoupled"),
            [identity, config.distill],
            parallel=True,
        ),
        Stage(
            "scores_coupled",
            partial(rescore, run),
            ("calibration", "library", "search_decoupled", "coupled"),
            [identity, config.score],
            parallel=True,
        ),
    ]


def check_stages(run: Puzzle) -> list[Stage]:
    """What says how much it brought, once the child is chosen."""
    needs = ("calibration", "library", "coupled", "search")
    return [Stage("coupled_kl", partial(check, run), needs)]


def reduced_space(space: Sequence[LayerSpace], choices: Sequence[np.ndarray], most: int) -> Pairs:
    """The pairs of each layer that are worth training together.

    Args:
        space: options of every layer.
        choices: index of the chosen pair in each layer; the child's first, which stays in any case,
            then those at other budgets.
        most: pairs of a layer beside the parent's own, at most; the most often chosen are kept.

    Returns:
        Distinct pairs of every layer, the parent's own first.
    """
    chosen = [blocks_of(space, choice) for choice in choices]
    pairs = []
    for options, blocks in zip(space, zip(*chosen, strict=True), strict=True):
        often = [block for block, _ in Counter(blocks).most_common()]
        kept = [block for block in dict.fromkeys([blocks[0], *often]) if block != options.parent]
        pairs.append([options.parent, *kept[:most]])
    return pairs


def trainable(block: BlockOption, parent: BlockOption) -> bool:
    """Whether there is something in a pair that training its halves apart has not seen.

    Both halves have to differ from the parent's, and one of them has to hold weights. Fewer bits
    are rounded from halves and not trained.
    """
    halves = tuple(zip(block.halves, parent.halves, strict=True))
    return (
        all(half != own for half, own in halves)
        and any(half.kind != "no_op" for half in block.halves)
        and all(half.bits is None for half in block.halves)
    )


def reduce(run: Puzzle, ctx: StageContext) -> None:
    """Finds the child that halves trained apart would make, and the pairs that matter around it.

    The batch size is chosen here, for both searches.
    """
    config, metric = run.config, run.config.score.metric
    latency, table = deploy.latency_model(run, ctx)
    scored = Scored.load(ctx.input("scores"), run.space)
    scores = scored.repaired(run.space, metric, config.search.isotonic).scores
    problems = deploy.restricted(
        run,
        {b: deploy.pricing_of(run, latency, b).problem(scores, metric) for b in run.batches},
    )
    budget = Budget(config.budget.limits())
    check = deploy.checker(run, ctx, problems, table, [])
    found = search_child(problems, budget, config.search, check, config.search.tighten)
    points = latency_points(found.problem, config.search.frontier, config.search, budget)
    others = [allocation.choice for _, allocation, _ in points if allocation is not None]
    chosen = found.allocation.choice
    pairs = reduced_space(run.space, [chosen, *others], config.distill.coupled_pairs)
    atomic_write_json(
        ctx.dir / "step.json",
        {
            "batch": found.batch,
            "allocation": found.allocation.to_json(),
            "blocks": [block.to_config() for block in blocks_of(run.space, chosen)],
            "pairs": [[block.to_config() for block in blocks] for blocks in pairs],
        },
    )


def train(run: Puzzle, ctx: StageContext) -> None:
    """Trains the pairs of the reduced space whose halves both differ from the parent's.

    Summary: ``coupled.pairs`` (trained), ``coupled.loss_start`` and ``coupled.loss`` (mean
    normalised error of the block on held-out rows, of the halves trained apart and of the pair; the
    second is never above the first), ``coupled.tokens_per_second``, ``coupled.mfu`` and
    ``coupled.activations`` (where the parent's waited).
    """
    distill = run.config.distill
    pairs = _pairs(ctx)
    wanted = [
        [block for block in blocks if trainable(block, layer.parent)]
        for blocks, layer in zip(pairs, run.space, strict=True)
    ]
    settings = replace(distill, tokens=distill.coupled_tokens)
    speed = variants.train(run, ctx, wanted, settings, apart=Library(ctx.input("library")))
    if not ctx.ranks.main:
        return
    library = Library(ctx.dir)
    records = [
        record
        for layer, blocks in enumerate(wanted)
        for block in blocks
        if (record := library.record(layer, block)) is not None
    ]
    atomic_write_json(ctx.dir / "coupled.json", [asdict(record) for record in records])
    ctx.summary(
        {
            "coupled.pairs": len(records),
            **{f"coupled.{name}": value for name, value in speed.items()},
            **{
                f"coupled.{name}": float(np.mean([getattr(record, name) for record in records]))
                if records
                else None
                for name in ("loss_start", "loss")
            },
        }
    )


def rescore(run: Puzzle, ctx: StageContext) -> None:
    """Scores the pairs of the reduced space, each replacing the parent's block by itself.

    Summary: ``scores_coupled.not_finite``, pairs whose output was not, which no search takes.
    """
    parent, config = run.parent(ctx.device), run.config.score
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors").first(config.tokens)
    rows = rows.to(parent.model.device)
    pairs = _pairs(ctx)
    scores = score_library(
        parent.model,
        run.space,
        run.library(ctx),
        rows,
        config,
        ctx.dir,
        track=lambda layers, total: ctx.track(layers, total, "scoring", unit="layer"),
        store=run.store(ctx, parent, rows),
        ranks=ctx.ranks,
        reduced=pairs,
    )
    finite = sum(int(np.isfinite(score.values_AF[config.metric]).sum()) for score in scores)
    ctx.summary({"scores_coupled.not_finite": sum(map(len, pairs)) - finite})


def check(run: Puzzle, ctx: StageContext) -> None:
    """Puts the chosen child together both ways, before global distillation.

    Summary: ``coupled.kl`` and ``coupled.kl.decoupled``, KL from the parent on all validation rows
    in nats a token, of the child with the pairs that were trained together and with the same halves
    trained apart.
    """
    parent = run.parent(ctx.device).model
    chosen = json.loads((ctx.input("search") / "architectures.json").read_text(encoding="utf-8"))
    blocks = [BlockOption.from_config(entry) for entry in chosen["child"]]
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors").to(parent.device)
    libraries = {"kl": run.library(ctx), "kl.decoupled": Library(ctx.input("library"))}
    result = {
        f"coupled.{name}": compare(
            parent, realise_child(parent, blocks, library), rows, run.config.score.batch_tokens
        )["kl"]
        for name, library in libraries.items()
    }
    atomic_write_json(ctx.dir / "coupled_kl.json", result)
    ctx.summary(result)


def _pairs(ctx: StageContext) -> Pairs:
    """What the first search has left of every layer."""
    path = ctx.input("search_decoupled") / "step.json"
    layers = json.loads(path.read_text(encoding="utf-8"))["pairs"]
    return [[BlockOption.from_config(entry) for entry in layer] for layer in layers]
