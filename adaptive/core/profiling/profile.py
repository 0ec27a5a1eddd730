"""The task `profile`: a table of measured times for a model's blocks."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive.core.cost import CrossValidation, MeasuredTable
from adaptive.core.cost.models import VitShape
from adaptive.core.engine import block_subject
from adaptive.core.hardware import Clock, clock_for, default_table_path, profile
from adaptive.core.profiling.config import ProfileConfig
from adaptive.core.profiling.grid import blocks_of, model_shape, requests
from adaptive.core.profiling.report import profile_page
from adaptive.core.run import Stage, StageContext, resolve_device, say
from adaptive.core.run.environment import git_state


def stages(config: ProfileConfig) -> list[Stage]:
    """One stage that measures; an interrupted one goes on where it was."""
    model_shape(config.model)  # refused before anything is measured
    origin = make_clock(config, resolve_device(config.device)).origin
    return [Stage("profile", lambda ctx: run(ctx, config), (), [config, origin])]


def run(ctx: StageContext, config: ProfileConfig) -> None:
    """Measures what the table lacks; writes it, its own cross-validation, and the page."""
    clock = make_clock(config, ctx.device)
    table = open_table(config, clock)
    before = len(table)
    skipped = measure(config, clock, table, ctx.track)
    table.save()
    table.save(ctx.dir / "costs.csv")
    check = table.cross_validate()
    say(f"[profile] {len(table)} rows in {table.path}\n{check}")
    ctx.summary(
        {
            "device": table.origin.device,
            "table": str(table.path),
            "rows": len(table),
            "rows.measured": len(table) - before,
            "rows.skipped": skipped,
            **interpolation_errors(check),
        }
    )
    blocks = blocks_of(model_shape(config.model), config.variants)
    error = check.along("intermediate", "kv_heads", "length")
    page = profile_page(f"Profile of {config.model}", table, blocks, config.dtype, error)
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def make_clock(config: ProfileConfig, device: str) -> Clock:
    """The clock of the configured mode."""
    auto = "graph" if device.startswith("cuda") else "eager"
    return clock_for(device, auto if config.mode == "auto" else config.mode)


def open_table(config: ProfileConfig, clock: Clock, force: bool = False) -> MeasuredTable:
    """The table to read and extend, the user's by default."""
    path = Path(config.table) if config.table else default_table_path(clock.origin)
    if path.exists():
        table = MeasuredTable.load(path, clock.origin, force=force, mode=clock.mode)
        if table.origin != clock.origin:
            table.path = None  # what is measured here has no place in a file of elsewhere
    else:
        table = MeasuredTable(clock.origin, path=path, mode=clock.mode)
    if clock.device.startswith("cuda"):
        import torch

        # The fitted model rounds work up to full waves of them.
        properties = torch.cuda.get_device_properties(clock.device)
        table.notes["multiprocessors"] = properties.multi_processor_count
    return table


def measure(config: ProfileConfig, clock: Clock, table: MeasuredTable, track: Any = None) -> int:
    """Measures what the table lacks; returns how many sizes the device has no memory for."""
    shape = model_shape(config.model)
    vision = isinstance(shape, VitShape)
    memory = clock.free_memory()
    footprint = shape.stack().weight_bytes(config.dtype)
    subjects, skipped = [], 0
    for want in requests(blocks_of(shape, config.variants), config.workload, vision):
        subject = block_subject(
            want.block,
            want.phase,
            want.batch,
            want.length,
            config.dtype,
            clock.device,
            footprint / max(config.variants.tensor_parallel),
        )
        if subject.nbytes > memory:
            skipped += 1
        else:
            subjects.append(subject)
    if any(subject.row_key(clock.mode) not in table for subject in subjects):
        table.notes |= {"date": datetime.now(UTC).date().isoformat(), "commit": commit()}
    profile(
        subjects,
        table,
        clock,
        target_spread=config.spread,
        max_seconds=config.seconds,
        memory=memory,
        track=track,
    )
    return skipped


def interpolation_errors(check: CrossValidation) -> dict[str, float | None]:
    """What the summary says of a table's interpolation; None where it has no interior points.

    The mean is over what a search interpolates along: FFN widths, KV heads, contexts and lengths.
    Along the number of tokens kernels change from one to the next, and the error is told apart.
    """
    errors = {
        "interpolation.error.mean": check.along("intermediate", "kv_heads", "length"),
        "interpolation.error.batch": check.along("batch"),
    }
    return {name: None if math.isnan(error) else error for name, error in errors.items()}


def commit() -> str | None:
    """The commit that measured, marked where the tree had changes."""
    state = git_state()
    return None if state is None else state["commit"] + ("-dirty" if state["dirty"] else "")
