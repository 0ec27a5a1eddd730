"""The promise against the fact: latency and memory of a child, measured beside its parent."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adaptive.core import Workload
from adaptive.core.hardware import Clock
from adaptive.llm_puzzle.latency import phases, whole_call
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.runtime import Runner


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
    parent: PuzzleForCausalLM,
    child: PuzzleForCausalLM,
    workload: Workload,
    clock: Clock,
    seconds: float,
) -> Measured:
    """Times the workload on both models in turns.

    A generation is its prefill plus its decode steps; a step takes time linear in the context, so
    the mean of the first and the last one stands for all.

    Args:
        parent, child: on the same device.
        workload: batch and lengths.
        clock: device and mode.
        seconds: time limit for all measurements.
    """
    points = phases(workload)
    steps = max(workload.output - 1, 0)
    decodes = sum(phase == "decode" for phase, _ in points)
    totals = {"parent": 0.0, "child": 0.0}
    settled = True
    for phase, length in points:
        timings = clock.compare(
            {
                "parent": whole_call(parent, phase, length, workload),
                "child": whole_call(child, phase, length, workload),
            },
            calls=1,
            target_spread=0.003,
            max_seconds=seconds / len(points),
        )
        settled &= not timings.unsettled
        times = 1 if phase == "prefill" else steps / decodes
        base = timings["parent"].median
        totals["parent"] += times * base
        # The ratio within rounds is free of drift; the ratio of medians is not.
        totals["child"] += times * base * timings.ratio("child", "parent").median
    return Measured(totals["parent"], totals["child"], totals["parent"] / totals["child"], settled)


@torch.no_grad()
def measure_memory(model: PuzzleForCausalLM, workload: Workload) -> float:
    """Bytes that the model's weights and its KV caches hold after running the workload.

    Args:
        model: to run; prefill of the prompt, then the last decode step.
        workload: its batch and longest sequences decide how far the caches are filled.
    """
    tensors = {id(weight): weight for weight in model.parameters()}
    total = sum(weight.nbytes for weight in tensors.values())
    runner = Runner(model)
    ids_BT = torch.zeros(workload.batch, max(1, workload.prompt), dtype=torch.int64)
    ids_BT = ids_BT.to(model.device)
    runner.prefill(ids_BT)
    if workload.output:
        runner.decode(ids_BT[:, :1], workload.seq_len - 1)
    buffers = (buffer for cache in runner.caches for buffer in (cache.keys, cache.values))
    return float(total + sum(buffer.nbytes for buffer in buffers if buffer is not None))
