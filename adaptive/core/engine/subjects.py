"""Shapes and whole engines as subjects of the profiler.

Shapes: B sequences, T tokens, M = B * T, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from adaptive.core.cost.block import Block, activation_dtype, dtype_bytes
from adaptive.core.cost.footprint import memory_of
from adaptive.core.cost.shapes import Attention, Embedding, Head
from adaptive.core.cost.stack import Composite, Stack
from adaptive.core.cost.table import Phase
from adaptive.core.cost.vision import Conv2d
from adaptive.core.engine.engine import CONTEXT_STRIDE, Engine, Rope
from adaptive.core.engine.modules import TORCH_DTYPES, KVCache, Step, build
from adaptive.core.errors import UserError
from adaptive.core.hardware.clock import Rotation
from adaptive.core.hardware.profiler import Subject
from adaptive.core.workload import Workload

WORKING_SET = 4e9  # bytes that pass before a copy runs again, many times the caches
MAX_COPIES = 64


def block_subject(
    block: Block,
    phase: Phase,
    batch: int,
    length: int,
    dtype: str,
    device: str,
    footprint: float = math.inf,
) -> Subject:
    """What measures one block.

    In a model a block's weights are read once a step, and everything else passes through the
    device's cache before they are read again. A chain of calls of one block would find them there:
    an FFN of 35 MB on an H100 with 50 MB of cache seems 12 % faster than it is. So the chain turns
    through copies with weights and caches of their own, enough of them to displace each other, as
    far as the model itself is that large.

    Args:
        block: its shape.
        phase, batch, length: as in ``Subject``; encoders know no decode, and the decode step of a
            pointwise block is its prefill of one token a sequence.
        dtype: of the weights.
        device: of torch.
        footprint: bytes that the whole model reads between two calls of this block.
    """
    caches = block.pointwise or block.kv_bytes_per_token(dtype)
    if phase == "decode" and not caches:
        raise UserError(f"{block.key()} has no KV cache to decode with, time its prefill")
    run: tuple[Phase, int] = (phase, length)
    if block.pointwise and phase == "decode":
        run = ("prefill", 1)
    decode = run[0] == "decode"
    touched = (block.decode_bytes if decode else block.prefill_bytes)(batch, run[1], dtype)
    # Caches have room for every token, also where a sliding window looks at the last ones alone.
    room = batch * (length + 1) * block.kv_bytes_per_token(activation_dtype(dtype))
    # A tied head stores nothing in a model; alone it needs a matrix of its own.
    alone = block.weights_read(1) * dtype_bytes(block.weight_dtype(dtype))
    held = max(block.weight_bytes(dtype), alone) + room
    copies = 1
    if device.startswith("cuda"):
        # What is held counts where little of it is touched: 64 tables of embeddings fill a GPU.
        copies = math.ceil(min(footprint, WORKING_SET) / max(touched, held, 1))
        copies = min(MAX_COPIES, copies)
    nbytes = copies * held + block.activation_bytes(batch, 1 if decode else run[1], dtype)

    def make() -> Callable[[], Any]:
        phase, length = run
        # Copies share what enters them: in a model it has just been written, and is at hand.
        inputs = _inputs(block, batch, batch * (length if phase == "prefill" else 1), dtype, device)
        rotary = _rotary(block, length, dtype, device)
        calls = [
            _maker(block, phase, batch, length, dtype, device, inputs, rotary)
            for _ in range(copies)
        ]
        return calls[0] if copies == 1 else Rotation(calls)

    return Subject(block, phase, batch, length, make, dtype, nbytes)


@torch.no_grad()
def _inputs(block: Block, batch: int, tokens: int, dtype: str, device: str) -> Any:
    """Random inputs of a forward: ids [M], an image, or the residual stream and its addition."""
    options: dict[str, Any] = {"dtype": TORCH_DTYPES[dtype], "device": device}
    if isinstance(block, Embedding):
        return torch.randint(block.vocab, (tokens,), device=device)
    if isinstance(block, Conv2d):
        image = torch.randn(batch, block.inputs, *_sides(tokens // batch, block.stride), **options)
        return image.to(memory_format=torch.channels_last)
    return tuple(torch.randn(tokens, _width(block), **options) for _ in range(2))


def _rotary(
    block: Block, length: int, dtype: str, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [T, D] of the positions of a block that has a cache; else empty ones."""
    if not isinstance(block, Attention) or not block.cached:
        nothing = torch.empty(0, dtype=TORCH_DTYPES[dtype], device=device)
        return nothing, nothing
    return Rope(block.head_dim).table(length + 1, TORCH_DTYPES[dtype], device)


@torch.no_grad()
def _maker(
    block: Block,
    phase: Phase,
    batch: int,
    length: int,
    dtype: str,
    device: str,
    inputs: Any,
    rotary: tuple[torch.Tensor, torch.Tensor],
) -> Callable[[], Any]:
    """A call of a new module with random weights."""
    module = build(block, dtype, device)
    if isinstance(block, Embedding):
        positions_T = torch.arange(length, device=device).clamp(max=max(block.positions - 1, 0))
        return lambda: module(inputs, positions_T)
    if isinstance(block, Conv2d):
        return lambda: module(inputs)
    if isinstance(block, Head):
        return lambda: module(inputs, batch)
    cos, sin = rotary
    if not isinstance(block, Attention) or not block.cached:
        step = Step(batch, cos, sin, torch.arange(1), decode=False)
        return lambda: module(inputs, step)
    cache = KVCache.empty(block, batch, length + (phase == "decode"), dtype, device)
    cache.keys.normal_()
    cache.values.normal_()
    if phase == "prefill":
        positions_T = torch.arange(length, device=device)
        step = Step(batch, cos[:length], sin[:length], positions_T, decode=False)
    else:
        positions_T = torch.tensor([length], device=device)
        # On a GPU steps are graphs that attend through a mask, a sliding window through one of
        # more slots than it has; so do the blocks.
        mask, slack = None, 0
        if cos.is_cuda:
            mask, slack = cos.new_zeros(1, 1, 1, length + 1), CONTEXT_STRIDE - 1
        step = Step(batch, cos[length:], sin[length:], positions_T, True, length + 1, mask, slack)
    return lambda: module(inputs, step, cache)


def _sides(pixels: int, stride: int) -> tuple[int, int]:
    """Height and width of the squarest map of so many pixels, divisible by the stride if any is."""
    maps = [(y, pixels // y) for y in range(1, math.isqrt(pixels) + 1) if pixels % y == 0]
    even = [sides for sides in maps if sides[0] % stride == sides[1] % stride == 0]
    return (even or maps)[-1]


def _width(block: Block) -> int:
    while isinstance(block, Composite):
        block = block.members()[0]
    return getattr(block, "hidden", 0) or getattr(block, "inputs", 0)


def engine_call(engine: Engine, phase: Phase, batch: int, length: int) -> Callable[[], Any]:
    """A call of a whole engine: a prefill of ``length`` tokens, or the decode step after them."""
    vocab = engine.stack.blocks[0].vocab  # type: ignore[attr-defined]
    tokens = batch * (length if phase == "prefill" else 1)
    ids_M = torch.randint(vocab, (tokens,), device=engine.device)
    if phase == "prefill":
        step, caches = engine.prefill_step(batch, length), engine.make_caches(batch, length)
        return lambda: engine(ids_M, step, caches)
    caches = engine.make_caches(batch, length + 1)
    if engine.device.type == "cpu":
        step = engine.decode_step(batch, length)
        return lambda: engine(ids_M, step, caches)
    position_1 = torch.tensor([length], device=engine.device)
    return lambda: engine(ids_M, engine.masked_step(batch, position_1, length + 1), caches)


def engine_subject(
    key: str,
    stack: Stack,
    engine: Callable[[], Engine],
    phase: Phase,
    batch: int,
    length: int,
    dtype: str,
) -> Subject:
    """What measures a whole engine.

    Args:
        key: names the architecture in a table.
        stack: of the engine.
        engine: makes the engine or returns one made before.
        phase, batch, length, dtype: as in ``Subject``.
    """
    prompt, output = (length, 0) if phase == "prefill" else (1, length)
    nbytes = memory_of(stack, Workload(batch, prompt, output), dtype).total

    def make() -> Callable[[], Any]:
        return engine_call(engine(), phase, batch, length)

    return Subject(key, phase, batch, length, make, dtype, nbytes)
