"""Measured latencies of a search space's sub-blocks and of whole models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from adaptive.core.cost import Embedding, Head, MeasuredTable, Row, RowKey, decode_contexts
from adaptive.core.cost.table import Phase
from adaptive.core.hardware import Clock, Subject, clock_for, default_table_path, profile
from adaptive.core.workload import Workload
from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption
from adaptive.llm_puzzle.config import CostConfig
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.realise import random_model
from adaptive.llm_puzzle.runtime import Runner, embed, head, layer_call
from adaptive.llm_puzzle.shapes import DTYPES, shape
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.walk import build

Track = Callable[..., Any]


def open_table(config: CostConfig, clock: Clock) -> MeasuredTable:
    """The table that measurements are read from and added to.

    By default it belongs to the user and the machine, not to the run: what was measured once holds
    for every run on the same device, torch version and thread count.
    """
    path = config.table or default_table_path(clock.origin)
    return MeasuredTable.open(path, clock.origin, mode=clock.mode)


def mode_of(config: CostConfig, device: str) -> str:
    """The clock's mode, ``auto`` resolved: graphs on a GPU, eager calls elsewhere."""
    if config.mode != "auto":
        return config.mode
    return "graph" if device.startswith("cuda") else "eager"


def make_clock(config: CostConfig, device: str) -> Clock:
    """The clock that all latencies of a run are measured with."""
    return clock_for(device, mode_of(config, device))


def phases(workload: Workload) -> list[tuple[Phase, int]]:
    """(phase, length) of the points at which a workload's latency is measured.

    A decode step takes time linear in its context, so the two ends of the generation suffice.
    """
    steps, first, last = decode_contexts(workload)
    points: list[tuple[Phase, int]] = []
    if workload.prompt:
        points.append(("prefill", workload.prompt))
    if steps:
        points.append(("decode", first))
    if steps and last > first:
        points.append(("decode", last))
    return points


def profile_space(
    model: PuzzleForCausalLM,
    space: Sequence[LayerSpace],
    workloads: Sequence[Workload],
    table: MeasuredTable,
    clock: Clock,
    config: CostConfig,
    track: Track | None = None,
) -> None:
    """Measures every distinct sub-block of the space, the embedding, the head and the parent.

    Args:
        model: the parent.
        space: options of every layer.
        workloads: batch sizes and lengths to measure at.
        table: receives the rows; what it holds is not measured again.
        clock: device and mode.
        config: time limit.
        track: progress display.
    """
    options = dict.fromkeys(option for layer in space for option in (*layer.attention, *layer.ffn))
    subjects: dict[str, Subject] = {}
    for workload in workloads:
        for phase, length in phases(workload):
            for option in options:
                if option.kind != "no_op":
                    subject = _sub_block(model, option, phase, length, workload)
                    subjects[f"{subject.block_key} {phase} {workload.batch} {length}"] = subject
            for subject in _ends(model, phase, length, workload):
                subjects[f"{subject.block_key} {phase} {workload.batch} {length}"] = subject
            whole = _whole(model, phase, length, workload)
            subjects[f"{whole.block_key} {phase} {workload.batch} {length}"] = whole
    calls = 10 if clock.mode == "graph" else 2
    profile(
        subjects,
        table,
        clock,
        calls,
        target_spread=config.spread,
        max_seconds=config.seconds,
        track=track,
    )


def _sub_block(
    model: PuzzleForCausalLM,
    option: AttentionOption | FFNOption,
    phase: Phase,
    length: int,
    workload: Workload,
) -> Subject:
    layer = build(model, option).eval().requires_grad_(False)
    call = layer_call(model, layer, phase, workload.batch, length, keep=workload.output > 0)
    key = shape(model.config, option).key()
    return Subject(key, phase, workload.batch, length, call, DTYPES[_name(model.dtype)])


def _ends(model: PuzzleForCausalLM, phase: Phase, length: int, workload: Workload) -> list[Subject]:
    """Embedding with rotary tables, and final norm with head."""
    config, batch = model.config, workload.batch
    tokens, position = (length, 0) if phase == "prefill" else (1, length)
    ids_BT = torch.zeros(batch, tokens, dtype=torch.int64, device=model.device)
    x_BTH, _ = embed(model, ids_BT, position)
    tied = bool(config.tie_word_embeddings)
    calls = {
        Embedding(config.vocab_size, config.hidden_size): lambda: embed(model, ids_BT, position),
        Head(config.hidden_size, config.vocab_size, tied=tied): lambda: head(model, x_BTH),
    }
    dtype = DTYPES[_name(model.dtype)]
    return [
        Subject(block.key(), phase, batch, length, call, dtype) for block, call in calls.items()
    ]


def model_key(config: PuzzleModelConfig) -> str:
    """A name for a whole architecture in a table of latencies; weights do not matter to it."""
    sizes = {name: getattr(config, name) for name in _SIZES}
    text = json.dumps([sizes, config.blocks], sort_keys=True)
    return f"model-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


_SIZES = ("hidden_size", "num_attention_heads", "head_dim", "vocab_size", "hidden_act") + (
    "qkv_bias", "o_bias", "mlp_bias", "qk_norm", "tie_word_embeddings",
)  # fmt: skip


def _whole(model: PuzzleForCausalLM, phase: Phase, length: int, workload: Workload) -> Subject:
    call = whole_call(model, phase, length, workload)
    dtype = DTYPES[_name(model.dtype)]
    return Subject(model_key(model.config), phase, workload.batch, length, call, dtype)


def whole_call(
    model: PuzzleForCausalLM, phase: Phase, length: int, workload: Workload
) -> Callable[[], torch.Tensor]:
    """A call that runs the prefill, or one decode step, of a whole model."""
    runner = Runner(model)
    generator = torch.Generator().manual_seed(0)
    tokens = length if phase == "prefill" else 1
    shape_BT = (workload.batch, tokens)
    ids_BT = torch.randint(model.config.vocab_size, shape_BT, generator=generator)
    ids_BT = ids_BT.to(model.device)
    if phase == "prefill":
        keep = workload.output > 0
        return lambda: runner.prefill(ids_BT, keep)
    runner.reserve(workload.batch, length + 1)
    return lambda: runner.decode(ids_BT, length)


def measured_latency(table: MeasuredTable, key: str, workload: Workload, dtype: str) -> float:
    """Seconds of a workload from a table that holds the model's (or block's) rows."""
    return table.latency(key, workload, dtype).seconds


def measure_model(
    parent: PuzzleForCausalLM,
    child_config: PuzzleModelConfig,
    workload: Workload,
    table: MeasuredTable,
    clock: Clock,
    seconds: float,
) -> None:
    """Measures a child of random weights in turns with its parent and adds its rows.

    Only the ratio of the two is new: it is free of the machine's drift, and the child's row is the
    parent's row times the ratio, so both stand on the same footing as the blocks' rows.
    """
    dtype = DTYPES[_name(parent.dtype)]
    keys = {
        (phase, length): RowKey(
            model_key(child_config), phase, workload.batch, length, dtype, clock.mode
        )
        for phase, length in phases(workload)
    }
    missing = {point: key for point, key in keys.items() if key not in table}
    if not missing:
        return
    child = random_model(child_config, parent)
    own = model_key(parent.config)
    for (phase, length), key in missing.items():
        timings = clock.compare(
            {
                "child": whole_call(child, phase, length, workload),
                "parent": whole_call(parent, phase, length, workload),
            },
            calls=1,
            target_spread=0.003,
            max_seconds=seconds / len(missing),
        )
        ratio = timings.ratio("child", "parent")
        base = table[key._replace(block=own)]
        table.add(Row(key, base.seconds * ratio.median, ratio.spread, ratio.repeats))
    if table.path:
        table.save()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
