"""The promise against the fact: latency and memory of a child, measured beside its parent."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adaptive.core import Workload
from adaptive.core.engine import Engine
from adaptive.core.hardware import Clock
from adaptive.llm_puzzle.latency import time_pair
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig


@dataclass(frozen=True)
class Measured:
    """Latencies of a workload, measured in turns.

    Attributes:
        parent: seconds.
        child: seconds.
        speedup: parent over child, from the ratios within rounds.
        settled: whether the medians had settled when time ran out.
    """

    parent: float
    child: float
    speedup: float
    settled: bool


def measure_pair(
    parent: PuzzleModelConfig,
    child: PuzzleModelConfig,
    workload: Workload,
    dtype: str,
    clock: Clock,
    seconds: float,
) -> Measured:
    """Times the workload on both models in turns.

    A generation is its prefill plus its decode steps; a step takes time linear in the context, so
    the mean of the first and the last one stands for all.

    Args:
        parent, child: architectures.
        workload: batch and lengths.
        dtype: of the weights, in the names of ``core.cost``.
        clock: device and mode.
        seconds: time limit for all measurements.
    """
    points = time_pair(parent, child, workload, dtype, clock, seconds)
    steps = max(workload.output - 1, 0)
    decodes = sum(point.phase == "decode" for point in points)
    totals = {"parent": 0.0, "child": 0.0}
    for point in points:
        times = 1 if point.phase == "prefill" else steps / decodes
        totals["parent"] += times * point.parent
        totals["child"] += times * point.parent * point.ratio
    settled = all(point.settled for point in points)
    return Measured(totals["parent"], totals["child"], totals["parent"] / totals["child"], settled)


@torch.no_grad()
def measure_memory(engine: Engine, workload: Workload) -> float:
    """Bytes that an engine's weights and its KV caches hold after running the workload.

    Args:
        engine: to run; prefill of the prompt, then the last decode step.
        workload: its batch and longest sequences decide how far the caches are filled.
    """
    total = sum(weight.nbytes for weight in engine.parameters())
    caches = engine.make_caches(workload.batch, workload.seq_len)
    shape_BT = (workload.batch, max(1, workload.prompt))
    ids_BT = torch.zeros(shape_BT, dtype=torch.int64, device=engine.device)
    engine.prefill(ids_BT, caches)
    if workload.output:
        engine.decode(ids_BT[:, 0], workload.seq_len - 1, caches)
    return float(total + sum(cache.nbytes for cache in caches if cache is not None))
