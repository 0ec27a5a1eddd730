"""The stage that tries FFN fusion on the child that was found, and keeps it if it pays."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core import UserError, Workload
from adaptive.core.blockwise.search import TOLERANCE
from adaptive.core.cost import MeasuredTable, Row
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.deploy import latency_model, pricing_of
from adaptive.llm_puzzle.fusion import fuse, fused_blocks, runs
from adaptive.llm_puzzle.latency import make_clock, profile_space
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.realise import child_config, realise_child
from adaptive.llm_puzzle.rounds import library_after
from adaptive.llm_puzzle.score import compare
from adaptive.llm_puzzle.shapes import DTYPES, shape
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.verify import measure_pair

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle


def fusion(run: Puzzle, ctx: StageContext, keep_last: bool) -> None:
    """Merges the FFNs that the search has freed from attention, measures, and decides.

    The fused child is kept if it is faster than the child as found and its KL from the parent is at
    most ``search.fuse_limit`` higher, relative. Both are put together from the library and compared
    on the validation rows, before the last distillation; their latencies are measured in turns, or
    with a cost model of another device predicted.

    Writes the merged FFNs as a library does, and ``fusion.json``: ``runs`` (lists of layers),
    ``blocks`` and predicted ``cost`` of the fused child, ``kl`` and ``latency`` (s) with ``before``
    and ``after``, ``latency.kind`` (measured, predicted, or bound), ``kept``, and the ``reason``
    where it is not.

    Summary: ``fusion.runs``, ``fusion.layers`` (FFNs that were merged), ``fusion.kl.before``,
    ``fusion.kl.after`` (nats a token), ``fusion.latency.before``, ``fusion.latency.after`` (s),
    ``fusion.latency.kind``, ``fusion.kept``; and where it is kept, the fused child's
    ``latency.child.predicted``, ``speedup.predicted`` and ``memory.child.predicted`` instead of the
    search's.

    Args:
        run: the run.
        ctx: of the stage.
        keep_last: whether an export's or the engine's reader wants an FFN in the last layer.
    """
    found = json.loads((ctx.input("search") / "search.json").read_text(encoding="utf-8"))
    chosen = json.loads((ctx.input("search") / "architectures.json").read_text(encoding="utf-8"))
    blocks = [BlockOption.from_config(entry) for entry in chosen["child"]]
    merged = runs(blocks, keep_last)
    fused = fused_blocks(blocks, merged)
    result: dict[str, Any] = {
        "runs": merged,
        "blocks": [block.to_config() for block in fused],
        "cost": None,
        "kl": _change(),
        "latency": _change(),
        "latency.kind": None,
        "kept": False,
        "reason": "no FFNs follow each other without attention between them",
    }
    if merged:
        result["kl"] = _kl(run, ctx, blocks, merged)
        result |= _latency(run, ctx, blocks, fused, found)
        result["reason"] = result["reason"] or reason_against(
            result["kl"], result["latency"], run.config.search.fuse_limit
        )
        result["kept"] = result["reason"] is None
    atomic_write_json(ctx.dir / "fusion.json", result)
    ctx.summary(
        {
            "fusion.runs": len(merged),
            "fusion.layers": sum(map(len, merged)),
            **{
                f"fusion.{quantity}.{when}": result[quantity][when]
                for quantity in ("kl", "latency")
                for when in ("before", "after")
            },
            "fusion.latency.kind": result["latency.kind"],
            "fusion.kept": result["kept"],
        }
    )
    if result["kept"]:
        cost = result["cost"]
        ctx.summary(
            {
                "latency.child.predicted": cost["latency"],
                "speedup.predicted": found["reference"]["latency"] / cost["latency"],
                "memory.child.predicted": cost["memory"],
            }
        )


def reason_against(
    kl: dict[str, float], latency: dict[str, float], limit: float, tolerance: float = TOLERANCE
) -> str | None:
    """Why a fused child is not kept, or ``None``.

    Args:
        kl, latency: ``before`` and ``after`` fusion.
        limit: rise of KL, relative, that is accepted.
        tolerance: relative gain of latency that clocks cannot tell from none.
    """
    if not latency["after"] * (1 + tolerance) < latency["before"]:
        return "the fused child is no faster"
    if not (math.isfinite(kl["after"]) and kl["after"] <= kl["before"] * (1 + limit)):
        return f"its KL is more than search.fuse_limit={limit:g} above the unfused child's"
    return None


def _change(before: float | None = None, after: float | None = None) -> dict[str, float | None]:
    return {"before": before, "after": after}


def _kl(
    run: Puzzle, ctx: StageContext, blocks: Sequence[BlockOption], merged: list[list[int]]
) -> dict[str, float | None]:
    """KL of both children from the parent on all validation rows."""
    parent = run.parent(ctx.device).model
    library = library_after(run, ctx, run.config.search.rounds - 1)
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors").to(parent.device)
    made = fuse(parent, blocks, merged, library, ctx.dir)

    def measure(blocks: Sequence[BlockOption], library: Library) -> float:
        child = realise_child(parent, blocks, library)
        return compare(parent, child, rows, run.config.score.batch_tokens)["kl"]

    return _change(measure(blocks, library), measure(fused_blocks(blocks, merged), made))


def _latency(
    run: Puzzle,
    ctx: StageContext,
    blocks: Sequence[BlockOption],
    fused: Sequence[BlockOption],
    found: dict[str, Any],
) -> dict[str, Any]:
    """Costs of the fused child, and the latency of both, measured where that is possible."""
    config, work = run.config, run.workloads[found["batch"]]
    model, user_table = latency_model(run, ctx)
    if user_table is not None:
        assert isinstance(model, MeasuredTable)
        model = _with_merged(run, ctx, work, blocks, fused, model, user_table)
        pricing = pricing_of(run, model, found["batch"])
        clock = make_clock(config.cost, ctx.device)
        unfused_config, fused_config = (
            child_config(run.parent_config, own) for own in (blocks, fused)
        )
        dtype, seconds = DTYPES[config.dtype], config.verify.seconds
        pair = measure_pair(unfused_config, fused_config, work, dtype, clock, seconds)
        return {
            "cost": total_cost(pricing, fused),
            "latency": _change(pair.parent, pair.child),
            "latency.kind": "measured",
            "reason": None,
        }
    pricing = pricing_of(run, model, found["batch"])
    kind = "bound" if model.is_bound else "predicted"
    try:
        before, cost = total_cost(pricing, blocks), total_cost(pricing, fused)
    except UserError as error:  # a shipped table that does not reach as far as the wider FFN
        return {"latency.kind": kind, "reason": str(error)}
    latency = _change(before["latency"], cost["latency"])
    return {"cost": cost, "latency": latency, "latency.kind": kind, "reason": None}


def total_cost(pricing: Pricing, blocks: Sequence[BlockOption]) -> dict[str, float]:
    """What a whole child costs by resource, whether or not its layers are of the space."""
    parts = [pricing.fixed(), *map(pricing.block_cost, blocks)]
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def _with_merged(
    run: Puzzle,
    ctx: StageContext,
    work: Workload,
    blocks: Sequence[BlockOption],
    fused: Sequence[BlockOption],
    table: MeasuredTable,
    user_table: MeasuredTable,
) -> MeasuredTable:
    """The run's table and the merged FFNs' times, from the user's table if they are known there.

    The machine may have drifted since the run's table was measured, so the FFNs that were merged
    are timed again in the same rounds, and the new times scaled by what those have changed by.
    """
    config = run.config.cost
    parent = run.parent_config
    keys = {shape(parent, block.ffn).key() for block in fused}
    known = () if config.refresh else [row for row in user_table if row.key.block in keys]
    # Copies without a file: the table belongs to the stage that measured it.
    both = _copy(table, [*known, *table])
    again = {shape(parent, block.ffn).key() for block in blocks} - keys
    now = _copy(table, [row for row in both if row.key.block not in again])
    profile_space(
        parent,
        [LayerSpace((block.attention,), (block.ffn,)) for block in (*fused, *blocks)],
        [work],
        DTYPES[run.config.dtype],
        now,
        make_clock(config, ctx.device),
        config,
        track=ctx.track,
    )
    timed = [row for row in now if row.key.block in again and row.key in both]
    drift = float(np.median([both[row.key].seconds / row.seconds for row in timed] or [1.0]))
    for row in now:
        if row.key not in both:
            both.add(replace(row, seconds=drift * row.seconds))
    both.save(ctx.dir / "latency.csv")
    for row in both:
        user_table.add(row)
    user_table.save()
    return both


def _copy(table: MeasuredTable, rows: Iterable[Row]) -> MeasuredTable:
    """Other rows of the same origin."""
    return MeasuredTable(
        table.origin,
        rows,
        mode=table.mode,
        context_stride=table.context_stride,
        notes=table.notes,
    )
