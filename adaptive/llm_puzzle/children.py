"""The stage that puts a child together, distils it globally and says how good it is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from adaptive.core import UserError
from adaptive.core.run import StageContext, atomic_write_json, say
from adaptive.llm_puzzle import judge
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.fusion import kept, library_of
from adaptive.llm_puzzle.gkd.stage import distil, unfinished
from adaptive.llm_puzzle.parent import Parent
from adaptive.llm_puzzle.puzzle import Puzzle, read_json, rows_of
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.rounds import healed_tokens, scores_stage


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
    if not is_child and chosen[name] == chosen["child"]:
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
    config, device = run.config, parent.model.device
    child = realise_child(parent.model, blocks, library_of(run, ctx))
    rows, budget = rows_of(ctx, "validation").to(device), config.evaluate.batch_tokens
    before = evaluate(child, rows, budget, parent.model) if ctx.ranks.main else None
    earlier = _seen(run, ctx)
    left = replace(config.gkd, tokens=max(0, config.gkd.tokens - earlier))
    long = config.gkd.long.tokens > 0
    tokens = earlier + distil(
        ctx,
        child,
        parent.model,
        rows_of(ctx, "train"),
        left,
        # All architectures see the same rows in the same order.
        config.seed,
        long_rows=rows_of(ctx, "long", "contexts") if long else None,
    )
    if before is None:
        return {}
    after = evaluate(child, rows, budget, parent.model)
    if not math.isfinite(after.loss):
        raise UserError(
            f"[{ctx.name}] global distillation diverged: lower gkd.learning_rate="
            f"{config.gkd.learning_rate}, or set dtype=float32"
        )
    worse = config.gkd.keep_better and after.kl > before.kl
    if worse:
        say(
            f"[{ctx.name}] global distillation made it worse (KL {before.kl:.4f} to "
            f"{after.kl:.4f}): the child from before is kept, lower gkd.learning_rate"
        )
        child = realise_child(parent.model, blocks, library_of(run, ctx))
    save_child(child, parent.tokenizer, ctx.dir / "model")
    return {
        **judge.compared(before, before if worse else after),
        "params": sum(p.numel() for p in child.parameters()),
        "gkd.tokens": tokens,
        "gkd.kept": "start" if worse else "end",
        **judge.beyond(ctx, config.evaluate, child, parent),
    }


def _seen(run: Puzzle, ctx: StageContext) -> int:
    """Tokens of global distillation that a child has seen between rounds of scoring."""
    if ctx.name != "child" or not healed_tokens(run.config):
        return 0
    last = ctx.input(scores_stage(run.config.search))
    return read_json(last / "child.json")["tokens"]
