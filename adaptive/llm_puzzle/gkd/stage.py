"""Global distillation inside a stage, in all its processes together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from adaptive.core import UserError
from adaptive.core.run import StageContext, say
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import Quality, evaluate
from adaptive.llm_puzzle.gkd.checkpoint import Checkpoint
from adaptive.llm_puzzle.gkd.train import distill_globally
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.quantise import round_child
from adaptive.llm_puzzle.settings import GKDConfig


@dataclass(frozen=True)
class Texts:
    """Rows to train and to judge on, and those of the long-context phase."""

    train: Rows
    validation: Rows
    long: Rows | None = None


@dataclass(frozen=True)
class Distilled:
    """A child and how good it is.

    Attributes:
        child: on the parent's device, rounded to the bits of its blocks; the one from before where
            training made it worse and the better one is to be kept. In processes but the main one
            it is nothing to go on with.
        tokens: seen.
        before: on the validation rows; None in processes but the main one.
        after: of the child that is kept; likewise.
        worse: the child from before is kept.
    """

    child: PuzzleForCausalLM
    tokens: int
    before: Quality | None = None
    after: Quality | None = None
    worse: bool = False


def distil(
    ctx: StageContext,
    make: Callable[[], PuzzleForCausalLM],
    parent: PuzzleForCausalLM,
    texts: Texts,
    config: GKDConfig,
    batch_tokens: int,
    seed: int,
) -> Distilled:
    """Distils a child and judges it before and after.

    Args:
        ctx: of the stage, which tracks and logs the steps; an attempt that was cut short goes on
            from its checkpoint there (:func:`unfinished`).
        make: puts the child together.
        parent: frozen.
        texts: rows.
        config: of the training.
        batch_tokens: at once, of the judging.
        seed: fixes the order of the rows.

    Raises:
        UserError: training diverged.
    """
    shared, device = ctx.ranks.world > 1, parent.device
    rows, child = texts.validation.to(device), make()
    before = evaluate(child, rows, batch_tokens, parent) if ctx.ranks.main else None
    if shared:  # each process takes its part to its device, and leaves the rest in main memory
        child.to("cpu")  # pyrefly: ignore[bad-argument-type]
    tokens = distill_globally(
        child,
        parent,
        texts.train.to(device),
        config,
        seed,
        track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
        log=ctx.log,
        long_rows=None if texts.long is None else texts.long.to(device),
        checkpoint=unfinished(ctx, config),
        ranks=ctx.ranks if shared else None,
    )
    if before is None:
        return Distilled(child, tokens)
    child.to(device)  # pyrefly: ignore[bad-argument-type]
    round_child(child)  # training has moved what has fewer bits off its grid
    after = evaluate(child, rows, batch_tokens, parent)
    if not math.isfinite(after.loss):
        raise UserError(
            f"[{ctx.name}] global distillation diverged: lower gkd.learning_rate="
            f"{config.learning_rate}, or set dtype=float32"
        )
    worse = config.keep_better and after.kl > before.kl
    if worse:
        say(
            f"[{ctx.name}] global distillation made it worse (KL {before.kl:.4f} to "
            f"{after.kl:.4f}): the child from before is kept, lower gkd.learning_rate"
        )
        child, after = make(), before
    return Distilled(child, tokens, before, after, worse)


def unfinished(ctx: StageContext, config: GKDConfig) -> Checkpoint:
    """Where an unfinished distillation waits; to be discarded once its result is safe."""
    return Checkpoint(ctx.dir / "gkd.checkpoint", config.checkpoint_seconds)
