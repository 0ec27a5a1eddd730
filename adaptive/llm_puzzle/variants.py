"""The stages that make and score the block library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from adaptive.core.hardware import detect
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import Option
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.distill import build_variants, groups
from adaptive.llm_puzzle.full_forward import full_forward_seconds
from adaptive.llm_puzzle.group_trainer import Speed
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.puzzle import Puzzle, read_json, rows_of
from adaptive.llm_puzzle.score import ScoreSpeed, inversions, replacements, score_library
from adaptive.llm_puzzle.settings import DistillConfig
from adaptive.llm_puzzle.shapes import DTYPES
from adaptive.llm_puzzle.stream import StreamedLayers
from adaptive.llm_puzzle.walk import walk_bytes


def build(run: Puzzle, ctx: StageContext) -> None:
    """Makes the block library."""
    space = run.space
    speed = train(run, ctx, [layer.variants for layer in space], run.config.distill)
    if not ctx.ranks.main:
        return
    records = list(Library(ctx.dir).records(space))
    atomic_write_json(ctx.dir / "library.json", [asdict(record) for record in records])
    told = {f"bld.{name}": value for name, value in speed.items()}
    ctx.summary({"library.variants": len(records), **told})
    if records:
        for name in ("loss_paper", "loss_ridge", "loss"):
            mean = float(np.mean([getattr(record, name) for record in records]))
            ctx.summary({f"library.{name}": mean})


def train(
    run: Puzzle,
    ctx: StageContext,
    wanted: Sequence[Sequence[Option]],
    distill: DistillConfig,
    apart: Library | None = None,
) -> dict[str, float | None]:
    """Makes variants in the stage's directory, in all processes of the stage together.

    Summary: ``STAGE.activations``, where the parent's waited.

    Args:
        run: the run.
        ctx: of the stage.
        wanted: options of every layer.
        distill: how they are trained.
        apart: what pairs start from.

    Returns:
        ``tokens_per_second`` and ``mfu``, as :func:`_speed` has them.
    """
    parent, rows = run.parent(ctx.device), rows_of(ctx, "train")
    largest = max(map(len, groups(parent.model, wanted, distill)))
    if distill.group is None and run.config.activations == "auto":
        largest = near(parent.model, rows, largest)
        distill = replace(distill, group=largest)
    # Each process tells its own time.
    timing = ctx.dir / f"speed_{ctx.ranks.rank}.json"
    speed = Speed(**(read_json(timing) if timing.is_file() else {}))

    def made(record: VariantRecord) -> None:
        atomic_write_json(timing, asdict(speed))
        ctx.log(
            None,
            layer=record.layer,
            option=record.option,
            side=record.side,
            start=record.loss_start,
            loss=record.loss,
            tokens_per_second=speed.tokens / max(speed.seconds, 1e-9),
        )

    store = run.store(ctx, parent, rows, largest)
    build_variants(
        parent.model,
        wanted,
        rows,
        distill,
        Library(ctx.dir),
        ctx.seed,
        run.config.data.batch,
        track=lambda jobs, total: ctx.track(jobs, total, "distilling variants", unit="variant"),
        log=made,
        store=store,
        speed=speed,
        ranks=ctx.ranks,
        apart=apart,
    )
    if ctx.ranks.main:
        ctx.summary({f"{ctx.name}.activations": store.place})
    total = Speed(
        int(ctx.ranks.sum(speed.tokens)),
        ctx.ranks.sum(speed.flops),
        ctx.ranks.max(speed.seconds),
    )
    return _speed(run, ctx, total)


def near(model: PuzzleForCausalLM, rows: Rows, layers: int) -> int:
    """So many of some layers, at most, that their activations have room on the device together.

    Fetched from anywhere else at every step, they take longer than a batched problem saves. Where
    not even one layer's have room, all wait elsewhere, and the number stays.
    """
    for part in range(1, layers + 1):
        size = -(-layers // part)
        if Store.choose("auto", walk_bytes(model, rows, size), model.device).place == "device":
            return size
    return layers


def _speed(run: Puzzle, ctx: StageContext, speed: Speed) -> dict[str, float | None]:
    """How fast variants were trained, and how much of the devices' peak together it was.

    Seconds are those of the slowest process, so one that has nothing to do counts.
    """
    if not speed.seconds:
        return {"tokens_per_second": None, "mfu": None}
    peak = detect(ctx.device).peak_flops.get(DTYPES[run.config.dtype])
    rate = speed.flops / speed.seconds
    return {
        "tokens_per_second": speed.tokens / speed.seconds,
        "mfu": rate / peak / ctx.ranks.world if peak else None,
    }


def score(run: Puzzle, ctx: StageContext) -> None:
    """Scores every option of every layer."""
    parent, config = run.parent(ctx.device), run.config.score
    rows = rows_of(ctx, "validation").first(config.tokens).to(parent.model.device)
    store = run.store(ctx, parent, rows)
    timing = ctx.dir / f"speed_{ctx.ranks.rank}.json"
    speed = ScoreSpeed(**(read_json(timing) if timing.is_file() else {}))
    library = Library(ctx.input("library"))
    scores = score_library(
        parent.model,
        run.space,
        library,
        rows,
        config,
        ctx.dir,
        track=lambda layers, total: ctx.track(layers, total, "scoring", unit="layer"),
        store=store,
        ranks=ctx.ranks,
        speed=speed,
        log=lambda spent: atomic_write_json(timing, asdict(spent)),
    )
    total = ScoreSpeed(int(ctx.ranks.sum(speed.replacements)), ctx.ranks.sum(speed.seconds))
    timing.unlink(missing_ok=True)  # scores are the same each time, seconds are not
    if not ctx.ranks.main:
        return
    plain = None
    if not isinstance(parent.model.model.layers, StreamedLayers):
        plain = full_forward_seconds(parent.model, run.space, library, rows, config.batch_tokens)
    ctx.summary(
        {
            # All of them; those whose time a kill has lost are not in the total.
            "scoring.replacements": replacements(run.space, config.granularity),
            "scoring.speedup_vs_full_forward": plain * total.replacements / total.seconds
            if plain and total.seconds
            else None,
        }
    )
    found = list(inversions(scores, config.metric))
    atomic_write_json(ctx.dir / "inversions.json", [asdict(inversion) for inversion in found])
    unusable = sum(int(np.isnan(s.values_AF[config.metric]).sum()) for s in scores)
    ctx.summary({"scores.inversions": len(found), "scores.not_finite": unusable})
