"""The stage that makes the block library."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from adaptive.core.run import StageContext, atomic_write_json, say
from adaptive.core.training import record_line
from adaptive.quadformer.data import ImageSet
from adaptive.quadformer.puzzle.images import Augmented, plain_batches
from adaptive.quadformer.puzzle.initialise import block_moments, variant
from adaptive.quadformer.puzzle.library import Library, VariantRecord
from adaptive.quadformer.puzzle.local import CHECKPOINT, Variants, distil, held_out_errors
from adaptive.quadformer.puzzle.parent import Run
from adaptive.quadformer.slim import SlimBlock


def build_library(run: Run, ctx: StageContext) -> None:
    """Fits every variant in closed form, distils it locally, and keeps the better."""
    model, config, images = run.model(ctx), run.config.library, run.images(ctx, "train")
    parts, tokens, amp = run.parts(images), run.tokens(ctx), run.config.evaluate.amp
    made = _fitted(run, ctx, images, parts.learn[: config.images])

    def losses() -> dict[Any, float]:
        held = plain_batches(images, parts.held, config.batch, model)
        return held_out_errors(model, made, (image for image, _ in held), tokens, amp)

    def log(**record: Any) -> None:
        ctx.log(**record)
        say(f"[library] {record_line(record)}")

    start = loss = losses()
    first = {key: copy.deepcopy(half.state_dict()) for key, half in made.items()}
    if config.steps and made:
        distil(
            model,
            made,
            Augmented(images, parts.learn, config.batch, model, run.config.augment, ctx.seed),
            tokens,
            config,
            ctx.dir,
            amp=amp,
            track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
            log=log,
        )
        loss = losses()
    library, records = Library(ctx.dir), []
    for (group, size), half in made.items():
        before, after = start[group, size], loss[group, size]
        better = after < before  # not where it is NaN
        if not better:
            half.load_state_dict(first[group, size])
        records.append(
            VariantRecord(
                block=group.block,
                half=group.half,
                size=size,
                params=sum(weight.numel() for weight in half.parameters()),
                loss_start=before,
                loss=after if better else before,
                steps=config.steps if better else 0,
            )
        )
        library.save(group, half, records[-1])
    atomic_write_json(ctx.dir / "library.json", [asdict(record) for record in records])
    (ctx.dir / CHECKPOINT).unlink(missing_ok=True)  # what was trained is saved
    ctx.summary({"library.variants": len(records)})
    for name in ("loss_start", "loss") if records else ():
        mean = float(np.mean([getattr(record, name) for record in records]))
        ctx.summary({f"library.{name}": mean})


def _fitted(run: Run, ctx: StageContext, images: ImageSet, index_N: Tensor) -> Variants:
    """All variants in closed form, after one pass of the parent at random numbers of tokens."""
    model, config, chance = run.model(ctx), run.config.library, np.random.default_rng(ctx.seed)
    tokens, count = run.tokens(ctx), -(-len(index_N) // config.batch)

    def batches() -> Iterator[tuple[Tensor, int]]:
        for image_BCHW, _ in plain_batches(images, index_N, config.batch, model):
            yield image_BCHW, int(chance.choice(tokens))

    searched = [group for group in run.space() if group.variants]
    shown = ctx.track(batches(), count, "fitting", unit="batch")
    moments = block_moments(model, shown, [(g.block, g.half) for g in searched])
    made: dict[Any, SlimBlock] = {}
    for group in searched:
        found = moments.pop((group.block, group.half))  # as large as the matrices: not kept
        for size in group.variants:
            block = model.vit.blocks[group.block]
            made[group, size] = variant(block, group, size, found, config.ridge)
    return made
