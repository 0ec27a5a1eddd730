"""The promise against the fact: latency and memory of a child, measured beside its parent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from adaptive.core import Allocation, Workload
from adaptive.core.cost import MeasuredTable
from adaptive.core.engine import Engine
from adaptive.core.engine.verify import Verification, check_fits, stride_of, verify
from adaptive.core.hardware import Clock
from adaptive.core.run import resolve_device
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.latency import make_clock, open_table, profile_space, time_pair
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.parent import parent_config, parent_directory
from adaptive.llm_puzzle.prices import Pricing, blocks_of
from adaptive.llm_puzzle.realise import child_config
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.settings import CostConfig
from adaptive.llm_puzzle.shapes import DTYPES, stack
from adaptive.llm_puzzle.space import LayerSpace

Model = str | os.PathLike[str] | PuzzleForCausalLM | PuzzleModelConfig


def verify_model(
    model: Model,
    workload: Workload,
    *,
    table: MeasuredTable | None = None,
    dtype: str | None = None,
    device: str = "auto",
    seconds: float = 1.0,
) -> Verification:
    """Runs a model the way a server would and holds what it takes against what was predicted.

    >>> verify_model("runs/twice/artifacts/child/model", Workload(16, 512, 128)).rows()

    Args:
        model: a child's or parent's directory (or ``zoo:NAME``), a loaded model, or a
            configuration alone, for which weights are random: time does not depend on them.
        workload: prompts read and tokens generated.
        table: predicts; None takes the user's table of this device and, for what that lacks,
            measures the model's blocks first.
        dtype: of the weights, in the names of ``core.cost``; None keeps that of a loaded model,
            and is "fp32" on a CPU and "bf16" on a GPU otherwise.
        device: of torch.
        seconds: at most, for each measured step.

    Raises:
        UserError: the device lacks the memory (says by how many GiB), or a given table the sizes.
    """
    device = resolve_device(device)
    engine = None
    if isinstance(model, PuzzleForCausalLM):
        config, device = model.config, str(model.device)
        own = DTYPES[str(model.dtype).removeprefix("torch.")]
        if dtype in (None, own):
            engine, dtype = engine_of(model), own
    elif isinstance(model, PuzzleModelConfig):
        config = model
    else:
        config = parent_config(parent_directory(str(model)))
    dtype = dtype or ("bf16" if device.startswith("cuda") else "fp32")
    clock = make_clock(CostConfig(), device)
    check_fits(stack(config), workload, dtype, device)
    if table is None:
        table = open_table(CostConfig(), clock)
        space = [
            LayerSpace((b.attention,), (b.ffn,))
            for b in map(BlockOption.from_config, config.blocks)
        ]
        profile_space(config, space, [workload], dtype, table, clock, CostConfig())
    stride = stride_of(device)
    table = MeasuredTable(
        table.origin, table, mode=clock.mode, context_stride=stride, notes=table.notes
    )
    return verify(stack(config), workload, table, clock, dtype, engine=engine, seconds=seconds)


def verify_allocation(
    allocation: Allocation, pricing: Pricing, device: str = "auto", **options: Any
) -> Verification:
    """:func:`verify_model` of the model that an allocation chooses, at the workload of its prices.

    Args:
        allocation: an answer to ``pricing.problem(...)``.
        pricing: what priced the options.
        device: of torch.
        options: ``table`` and ``seconds`` of ``verify_model``.
    """
    blocks = blocks_of(pricing.space, allocation.choice)
    config = child_config(pricing.config, blocks)
    return verify_model(config, pricing.workload, dtype=pricing.dtype, device=device, **options)


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
