"""Measured latencies of a search space's sub-blocks and of whole models.

Nothing here needs weights: time does not depend on them, so what is measured is built from shapes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive.core.cost import MeasuredTable, Row, RowKey, decode_contexts
from adaptive.core.cost.table import Phase
from adaptive.core.engine import Engine, block_subject, engine_call, engine_subject
from adaptive.core.engine.verify import check_fits, stride_of
from adaptive.core.hardware import Clock, Subject, clock_for, default_table_path, profile
from adaptive.core.workload import Workload
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.settings import CostConfig
from adaptive.llm_puzzle.shapes import shape, stack
from adaptive.llm_puzzle.space import LayerSpace

Track = Callable[..., Any]


def open_table(config: CostConfig, clock: Clock) -> MeasuredTable:
    """The table that measurements are read from and added to.

    By default it belongs to the user and the machine, not to the run: what was measured once holds
    for every run on the same device, torch version and thread count.
    """
    path = config.table or default_table_path(clock.origin)
    stride = stride_of(clock.device)
    return MeasuredTable.open(path, clock.origin, mode=clock.mode, context_stride=stride)


def mode_of(config: CostConfig, device: str) -> str:
    """The clock's mode, ``auto`` resolved: graphs on a GPU, eager calls elsewhere."""
    if config.mode != "auto":
        return config.mode
    return "graph" if device.startswith("cuda") else "eager"


def make_clock(config: CostConfig, device: str) -> Clock:
    """The clock that all latencies of a run are measured with."""
    return clock_for(device, mode_of(config, device))


def phases(
    workload: Workload, stride: int = 1, kinks: Sequence[int] = ()
) -> list[tuple[Phase, int]]:
    """(phase, length) of the points at which a workload's latency is measured.

    A decode step takes time linear in its context, so the two ends of the generation suffice, and
    where a sliding window fills up in between, the context at which it does.

    Args:
        workload: batch and lengths.
        stride: tokens of context between an engine's decode graphs.
        kinks: contexts at which the slope changes (``Block.kinks``).
    """
    steps, *ends = decode_contexts(workload)
    first, last = (-(-(end + 1) // stride) * stride - 1 for end in ends)
    # A graph of more slots than its window has looks at one stride more than the window, less one.
    bends = {-(-(kink + stride) // stride) * stride - 1 for kink in kinks}
    points: list[tuple[Phase, int]] = []
    if workload.prompt:
        points.append(("prefill", workload.prompt))
    if steps:
        contexts = {first, last, *(bend for bend in bends if first < bend < last)}
        points.extend(("decode", context) for context in sorted(contexts))
    return points


def profile_space(
    model: PuzzleModelConfig,
    space: Sequence[LayerSpace],
    workloads: Sequence[Workload],
    dtype: str,
    table: MeasuredTable,
    clock: Clock,
    config: CostConfig,
    track: Track | None = None,
) -> None:
    """Measures every distinct sub-block of the space, the embedding, the head and the parent.

    Args:
        model: of the parent.
        space: options of every layer.
        workloads: batch sizes and lengths to measure at.
        dtype: of the weights, in the names of ``core.cost``.
        table: receives the rows; what it holds is not measured again.
        clock: device and mode.
        config: time limit.
        track: progress display.

    Raises:
        UserError: the device lacks the memory for the parent; says by how many GiB.
    """
    whole = stack(model)
    options = dict.fromkeys(option for layer in space for option in (*layer.attention, *layer.ffn))
    # Options of fewer bits have the shapes, and the prices, of the others.
    blocks = list(dict.fromkeys(shape(model, o) for o in options if o.kind != "no_op"))
    blocks += [whole.blocks[0], whole.blocks[-1]]
    engine = functools.cache(lambda: Engine(whole, dtype, clock.device))
    footprint = whole.weight_bytes(dtype)
    subjects: list[Subject] = []
    for workload in workloads:
        check_fits(whole, workload, dtype, clock.device)
        for phase, length in phases(workload, stride_of(clock.device), whole.kinks()):
            place = (phase, workload.batch, length, dtype)
            subjects += [block_subject(b, *place, clock.device, footprint) for b in blocks]
            subjects.append(engine_subject(model_key(model), whole, engine, *place))
    profile(
        subjects,
        table,
        clock,
        None if clock.mode == "graph" else 2,
        target_spread=config.spread,
        max_seconds=config.seconds,
        track=track,
    )


def model_key(config: PuzzleModelConfig) -> str:
    """A name for a whole architecture in a table of latencies; weights do not matter to it."""
    return f"model-{hashlib.sha256(stack(config).key().encode()).hexdigest()[:16]}"


def measured_latency(table: MeasuredTable, key: str, workload: Workload, dtype: str) -> float:
    """Seconds of a workload from a table that holds the model's (or block's) rows."""
    return table.latency(key, workload, dtype).seconds


@dataclass(frozen=True)
class PairPoint:
    """A child and its parent, timed in turns at one point of a workload.

    Attributes:
        phase, length: the point.
        parent: seconds.
        ratio: child over parent: median of the ratios within rounds, which are free of drift.
        spread, repeats: of the ratio.
        settled: whether both medians had settled when time ran out.
    """

    phase: Phase
    length: int
    parent: float
    ratio: float
    spread: float
    repeats: int
    settled: bool


def time_pair(
    parent: PuzzleModelConfig,
    child: PuzzleModelConfig,
    workload: Workload,
    dtype: str,
    clock: Clock,
    seconds: float,
) -> list[PairPoint]:
    """Times two models at every point of a workload.

    Args:
        parent, child: architectures.
        workload: batch and lengths.
        dtype: of the weights, in the names of ``core.cost``.
        clock: device and mode.
        seconds: time limit for all points together.
    """
    engines = {
        name: Engine(stack(config), dtype, clock.device)
        for name, config in (("child", child), ("parent", parent))
    }
    # A child without its parent's windows is measured where the parent is, too.
    kinks = engines["parent"].stack.kinks()
    points, found = phases(workload, stride_of(clock.device), kinks), []
    for phase, length in points:
        timings = clock.compare(
            {
                name: engine_call(engine, phase, workload.batch, length)
                for name, engine in engines.items()
            },
            # Replays of graphs follow each other without a gap, as they do in a chain.
            calls=None if clock.mode == "graph" else 1,
            target_spread=0.003,
            max_seconds=seconds / len(points),
        )
        ratio, base = timings.ratio("child", "parent"), timings["parent"].median
        settled = not timings.unsettled
        found.append(
            PairPoint(phase, length, base, ratio.median, ratio.spread, ratio.repeats, settled)
        )
    return found


def measure_model(
    parent: PuzzleModelConfig,
    child: PuzzleModelConfig,
    workload: Workload,
    dtype: str,
    table: MeasuredTable,
    clock: Clock,
    seconds: float,
) -> None:
    """Adds a child's rows to a table that has its parent's, unless they are there.

    The child's row is the parent's row times the ratio measured in turns, so both stand on the
    same footing as the blocks' rows, whatever the machine has drifted to since.
    """

    def key(config: PuzzleModelConfig, phase: Phase, length: int) -> RowKey:
        return RowKey.of(model_key(config), phase, workload.batch, length, dtype, clock.mode)

    points = phases(workload, stride_of(clock.device), stack(parent).kinks())
    if all(key(child, *point) in table for point in points):
        return
    for point in time_pair(parent, child, workload, dtype, clock, seconds):
        base = table[key(parent, point.phase, point.length)]
        row_key = key(child, point.phase, point.length)
        table.add(Row(row_key, base.seconds * point.ratio, point.spread, point.repeats))
    if table.path:
        table.save()
