"""Global distillation inside a stage, in all its processes together."""

from __future__ import annotations

from adaptive.core.run import StageContext
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.gkd.checkpoint import Checkpoint
from adaptive.llm_puzzle.gkd.train import distill_globally
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.quantise import round_child
from adaptive.llm_puzzle.settings import GKDConfig


def distil(
    ctx: StageContext,
    child: PuzzleForCausalLM,
    parent: PuzzleForCausalLM,
    rows: Rows,
    config: GKDConfig,
    seed: int,
    *,
    long_rows: Rows | None = None,
) -> int:
    """Distils a child in place; afterwards the main process has it on the parent's device.

    Args:
        ctx: of the stage, which tracks and logs the steps; an attempt that was cut short goes on
            from its checkpoint there (:func:`unfinished`).
        child: trained, and rounded to the bits of its blocks.
        parent: frozen.
        rows: to train on.
        config: of the training.
        seed: fixes the order of the rows.
        long_rows: of the long-context phase.

    Returns:
        Tokens seen.
    """
    shared, device = ctx.ranks.world > 1, parent.device
    if shared:  # each process takes its part to its device, and leaves the rest in main memory
        child.to("cpu")  # pyrefly: ignore[bad-argument-type]
    tokens = distill_globally(
        child,
        parent,
        rows.to(device),
        config,
        seed,
        track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
        log=ctx.log,
        long_rows=None if long_rows is None else long_rows.to(device),
        checkpoint=unfinished(ctx, config),
        ranks=ctx.ranks if shared else None,
    )
    if ctx.ranks.main:
        child.to(device)  # pyrefly: ignore[bad-argument-type]
        round_child(child)  # training has moved what has fewer bits off its grid
    return tokens


def unfinished(ctx: StageContext, config: GKDConfig) -> Checkpoint:
    """Where an unfinished distillation waits; to be discarded once its result is safe."""
    return Checkpoint(ctx.dir / "gkd.checkpoint", config.checkpoint_seconds)
