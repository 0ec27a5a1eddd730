"""The stage that puts a child together, distils it globally and says how good it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle import judge
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.fusion import kept, library_of
from adaptive.llm_puzzle.gkd.stage import Texts, distil, unfinished
from adaptive.llm_puzzle.parent import Parent
from adaptive.llm_puzzle.puzzle import Puzzle, read_json, rows_of
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.rounds import healing, scores_stage


def make_child(run: Puzzle, ctx: StageContext) -> None:
    """Realises a choice, distils it globally and says how good it is before and after."""
    parent = run.parent(ctx.device)
    is_child = ctx.name == "child"
    name = "child" if is_child else ctx.name.removeprefix("baseline_")
    chosen = read_json(ctx.input("search") / "architectures.json")
    if fused := kept(ctx):
        chosen["child"] = fused["blocks"]
    if chosen[name] is None:
        return  # the search stage has said why
    # Equal blocks are equal children, unless the child has weights from partial ones.
    if not is_child and chosen[name] == chosen["child"] and healing(run.config) is None:
        result = read_json(ctx.input("child") / "quality.json")
    else:
        result = _distil(run, ctx, parent, [BlockOption.from_config(b) for b in chosen[name]])
    if not ctx.ranks.main:
        return
    atomic_write_json(ctx.dir / "quality.json", result)
    unfinished(ctx, run.config.gkd).discard()  # not before all that depends on it is safe
    ctx.summary(judge.child_summary(result) if is_child else judge.baseline_summary(name, result))


def _distil(
    run: Puzzle, ctx: StageContext, parent: Parent, blocks: list[BlockOption]
) -> dict[str, Any]:
    config = run.config
    earlier = _seen(run, ctx)
    long = config.gkd.long.tokens > 0
    found = distil(
        ctx,
        lambda: realise_child(parent.model, blocks, library_of(run, ctx)),
        parent.model,
        Texts(
            rows_of(ctx, "train"),
            rows_of(ctx, "validation"),
            rows_of(ctx, "long", "contexts") if long else None,
        ),
        # At least a step, whatever lengths the rows of the others had.
        replace(config.gkd, tokens=max(config.gkd.tokens - earlier, min(1, config.gkd.tokens))),
        config.evaluate.batch_tokens,
        # All architectures see the same rows in the same order.
        config.seed,
    )
    if found.before is None or found.after is None:
        return {}
    save_child(found.child, parent.tokenizer, ctx.dir / "model")
    return {
        **judge.compared(found.before, found.after),
        "params": sum(p.numel() for p in found.child.parameters()),
        "gkd.tokens": earlier + found.tokens,
        "gkd.kept": "start" if found.worse else "end",
        **judge.beyond(ctx, config.evaluate, found.child, parent),
    }


def _seen(run: Puzzle, ctx: StageContext) -> int:
    """Tokens of global distillation that a child has seen between rounds of scoring."""
    if ctx.name != "child" or healing(run.config) is None or not run.config.search.carry:
        return 0
    last = ctx.input(scores_stage(run.config.search))
    return read_json(last / "child.json")["tokens"]
