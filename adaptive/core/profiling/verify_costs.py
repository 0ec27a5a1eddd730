"""The task `verify_costs`: random heterogeneous children, predicted and measured."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from adaptive.core.cost import MeasuredTable, Stack
from adaptive.core.cost.footprint import largest, memory_of
from adaptive.core.cost.models import DecoderShape, decoder_shape
from adaptive.core.engine import Engine
from adaptive.core.engine.verify import (
    Component,
    Verifier,
    forward_latency,
    model_latency,
    stride_of,
)
from adaptive.core.errors import UserError
from adaptive.core.profiling.children import parent, random_children
from adaptive.core.profiling.config import VerifyCostsConfig
from adaptive.core.profiling.grid import blocks_of, model_shape
from adaptive.core.profiling.profile import (
    commit,
    interpolation_errors,
    make_clock,
    measure,
    open_table,
)
from adaptive.core.report import Report, predicted_measured_plot
from adaptive.core.run import (
    Stage,
    StageContext,
    atomic_write_json,
    resolve_device,
    say,
)
from adaptive.core.workload import Workload


def stages(config: VerifyCostsConfig) -> list[Stage]:
    """Measure the table's blocks, then children, then say how far off the sums are."""
    decoder_shape(shape_of(config))
    # A run that goes on elsewhere measures anew.
    origin = make_clock(config, resolve_device(config.device)).origin
    grid = [config.model, config.dtype, config.variants, config.workload, config.mode]
    measured = [*grid, config.table, config.spread, config.seconds, config.force, origin]
    return [
        Stage("costs", lambda ctx: costs(ctx, config), (), measured),
        Stage("children", lambda ctx: children(ctx, config), ("costs",), [config, origin]),
        Stage("report", lambda ctx: report(ctx, config), ("costs", "children"), [config]),
    ]


def shape_of(config: VerifyCostsConfig) -> DecoderShape:
    """The parent's shape; UserError where it generates nothing."""
    shape = model_shape(config.model)
    if not isinstance(shape, DecoderShape):
        raise UserError(f"model={config.model} generates no text, verify_costs needs a decoder")
    return shape


def costs(ctx: StageContext, config: VerifyCostsConfig) -> None:
    """Measures what the table lacks."""
    clock = make_clock(config, ctx.device)
    table = open_table(config, clock, force=config.force)
    measure(config, clock, table, ctx.track)
    table.save(ctx.dir / "costs.csv")
    check = table.cross_validate()
    say(f"[costs] {check}")
    ctx.summary(
        {
            "device": clock.origin.device,
            **interpolation_errors(check),
            "table.rows": len(table),
            "table.device": table.origin.device,
        }
    )


def children(ctx: StageContext, config: VerifyCostsConfig) -> None:
    """Predicts and measures every child; one file a child, so that a killed run goes on."""
    clock, shape = make_clock(config, ctx.device), shape_of(config)
    table = MeasuredTable.load(
        ctx.input("costs") / "costs.csv",
        mode=clock.mode,
        context_stride=stride_of(clock.device),
        extrapolate=config.extrapolate,
    )
    ask, dtype = config.children, config.dtype
    blocks = blocks_of(shape, config.variants)
    stacks = random_children(shape, blocks, ask.count, ask.layers, ctx.seed)
    reference = (
        Engine(parent(shape, ask.layers), dtype, clock.device)
        if in_pairs(config, clock.device)
        else None
    )
    verifier = Verifier(table, clock, dtype, ask.seconds, reference)
    memory = clock.free_memory(1.0)
    for i, stack in enumerate(ctx.track(stacks, total=len(stacks), desc="children", unit="child")):
        file = ctx.dir / f"child{i:03d}.json"
        if file.exists():
            continue
        draw = random.Random(f"{ctx.seed} {i}")
        engine = verifier.build(stack, Workload(1, 1))
        found: list[dict[str, Any]] = []
        for batch, length in decode_points(config, verifier, stack, memory, draw):
            component = verifier.forward(engine, "decode", "decode", batch, length)
            found.append(record(component, child=i, batch=batch, prompt=length, output=1))
        if i < ask.generations:
            work = workload_for(config, verifier, stack, memory, draw)
            for component in verifier.generation(engine, work):
                found.append(record(component, child=i, **work.to_json()))
        del engine
        atomic_write_json(file, found)


def in_pairs(config: VerifyCostsConfig, device: str) -> bool:
    """Whether children are timed in turns with their parent."""
    return device == "cpu" if config.pairs is None else config.pairs


def record(component: Component, **where: Any) -> dict[str, Any]:
    """A component as a row of the results."""
    return {**where, **asdict(component), "error": component.error}


def decode_points(
    config: VerifyCostsConfig, verifier: Verifier, stack: Stack, memory: float, draw: random.Random
) -> Iterator[tuple[int, int]]:
    """(batch, cached tokens) of the decode steps, contexts drawn from those that fit the device.

    A device without memory for a block at a size has no time of it: such contexts are passed over.
    """
    least, most = min(config.workload.contexts), max(config.workload.contexts)
    stride = verifier.stride
    for batch in config.children.batches:
        limit = largest(
            lambda context, batch=batch: (
                _bytes(verifier, stack, Workload(batch, 1, context - 1)) < 0.9 * memory
            ),
            most,
        )
        fitting = list(range(-(-least // stride) * stride, limit + 1, stride))
        while fitting:
            length = draw.choice(fitting) - 1
            where = (verifier.table, stack, "decode", batch, length, verifier.dtype)
            if _priced(forward_latency, *where):
                yield batch, length
                break
            fitting.remove(length + 1)
        else:
            raise UserError(
                f"children.batches: batch {batch} fits the device at no measured context from "
                f"{least} to {most} in steps of {stride}: choose smaller batches, fewer "
                "children.layers, or longer workload.contexts"
            )


def _priced(predict: Callable[..., object], *where: Any) -> bool:
    """Whether a table reaches that far."""
    try:
        predict(*where)
    except UserError:
        return False
    return True


def _bytes(verifier: Verifier, stack: Stack, workload: Workload) -> float:
    memory = memory_of(stack, workload, verifier.dtype, stride=verifier.stride, ring=False)
    return memory.total


def workload_for(
    config: VerifyCostsConfig, verifier: Verifier, stack: Stack, memory: float, draw: random.Random
) -> Workload:
    """A generation of random size that the table covers and the device has room for."""
    ask, grid = config.children, config.workload
    for _ in range(1000):
        batch = draw.choice(ask.generate_batches)
        prompts = [p for p in grid.prompts if p * batch <= grid.prefill_tokens]
        if not prompts or batch not in grid.prefill_batches:
            continue
        low, high = max(ask.prompts[0], min(prompts)), min(ask.prompts[1], max(prompts))
        if low > high:
            continue
        work = Workload(batch, draw.randint(low, high), draw.randint(*ask.outputs))
        inside = work.seq_len <= max(grid.contexts) - verifier.stride
        inside = inside and _bytes(verifier, stack, work) < 0.9 * memory
        if inside and _priced(model_latency, verifier.table, stack, work, verifier.dtype):
            return work
    raise UserError(
        f"children.prompts={ask.prompts} and children.outputs={ask.outputs} lie outside of what "
        "workload.prompts, contexts and prefill_tokens measure, or of the device's memory"
    )


def report(ctx: StageContext, config: VerifyCostsConfig) -> None:
    """Errors in the summary, the measurements as one file, and the page."""
    files = sorted(ctx.input("children").glob("child*.json"))
    rows = [row for file in files for row in json.loads(file.read_text())]
    atomic_write_json(ctx.dir / "measurements.json", rows)
    kinds = {"decode": "decode", "generate": "generation", "memory": "memory"}
    generations = sum(row["name"] == "generation" for row in rows)
    counts = {"children": len(files), "generations": generations}
    summary: dict[str, Any] = {**counts, "pairs": in_pairs(config, ctx.device), "commit": commit()}
    page = Report(f"Costs of {config.model}", f"{config.dtype}, predicted against measured")
    numbers: dict[str, str] = {}
    for name, component in kinds.items():
        errors = [abs(row["error"]) for row in rows if row["name"] == component]
        if not errors:
            continue
        summary[f"{name}.error.mean"] = float(np.mean(errors))
        summary[f"{name}.error.worst"] = float(np.max(errors))
        signed = [row["error"] for row in rows if row["name"] == component]
        summary[f"{name}.error.bias"] = float(np.mean(signed))
        numbers[f"{name}: mean error"] = f"{100 * np.mean(errors):.2f} %"
    say("[report] " + ", ".join(f"{name} {value}" for name, value in numbers.items()))
    ctx.summary(summary)
    page.numbers(numbers)
    memory = memory_unit(rows)
    units = {"decode": ("ms", 1e3), "generation": ("s", 1.0), "memory": memory}
    for component, (unit, scale) in units.items():
        points = [
            {
                "name": f"child {row['child']}",
                "predicted": scale * row["predicted"],
                "measured": scale * row["measured"],
            }
            for row in rows
            if row["name"] == component
        ]
        if points:
            figure = predicted_measured_plot(points, unit=unit, band=0.03)
            page.section(component.capitalize()).figure(
                figure, _caption(component, config, ctx.device)
            )
    page.section("Measurements").table([_shown(row, memory) for row in rows])
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def _caption(component: str, config: VerifyCostsConfig, device: str) -> str:
    if component == "memory":
        return "Most bytes that were allocated at any moment; on a CPU weights and caches."
    text = f"Random children of {config.model}; the prediction is the sum over their blocks."
    if in_pairs(config, device):
        text += (
            " They were timed in turns with their parent: what is measured is the ratio, times "
            "what is predicted for the parent."
        )
    return text


def memory_unit(rows: list[dict[str, Any]]) -> tuple[str, float]:
    """The unit of memory in which a page is readable, and how many of it a byte is."""
    most = max((row["measured"] for row in rows if row["name"] == "memory"), default=0.0)
    return ("GiB", 2.0**-30) if most >= 2**30 else ("MiB", 2.0**-20)


def _shown(row: dict[str, Any], memory: tuple[str, float]) -> dict[str, str]:
    unit, scale = memory if row["name"] == "memory" else ("ms", 1e3)
    return {
        "child": str(row["child"]),
        "what": row["name"],
        "batch": str(row["batch"]),
        "context": str(row["prompt"]),
        "output": str(row["output"]),
        "predicted": f"{scale * row['predicted']:.4g}\N{NO-BREAK SPACE}{unit}",
        "measured": f"{scale * row['measured']:.4g}\N{NO-BREAK SPACE}{unit}",
        "error": f"{100 * row['error']:+.2f}\N{NO-BREAK SPACE}%",
        "from": row["how"],
    }
