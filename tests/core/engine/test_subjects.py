"""Subjects of the profiler: built when they are needed, of the work that a shape counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from adaptive.core.cost import (
    BLOCKS,
    FFN,
    Attention,
    Block,
    Conv2d,
    Embedding,
    Head,
    Linear,
    Norm,
    VitBlock,
    decoder,
)
from adaptive.core.engine import Engine, block_subject, engine_call, engine_subject, subjects
from adaptive.core.engine.engine import capture
from adaptive.core.engine.subjects import MAX_COPIES, WORKING_SET, Rotation
from adaptive.core.hardware import clock_for

CASES: list[Block] = [
    Attention(16, 4, 2, 8),
    Attention(16, 4, 4, 8, bias=True, out_bias=True, norm_bias=True),
    Attention(16, 4, 1, 16, qk_norm=True, norm=False),
    Attention(16, 4, 2, 8, window=5),
    Attention(16, 4, 2, 8, cached=False),
    FFN(16, 32),
    FFN(16, 32, gated=False, bias=True, norm_bias=True),
    Linear(16, 32, bias=True),
    Embedding(50, 16),
    Embedding(50, 16, positions=10),
    Norm(16, bias=True),
    Head(16, 48),
    Head(16, 48, tied=True),
    Head(16, 48, every_position=True),
    Conv2d(4, 8, 3, stride=2, norm=True),
    Conv2d(4, 8, 4, stride=4, bias=True),
    VitBlock(16, 2, 32),
    VitBlock(16, 2, 32, layer_scale=True),
]


def decodes(block: Block) -> bool:
    """Encoders and convolutions know no decode."""
    encoder = isinstance(block, Attention) and not block.cached
    return not encoder and not isinstance(block, Conv2d | VitBlock)


RUNS = [
    pytest.param(block, phase, id=f"{block.key()}-{phase}")
    for block in CASES
    for phase in ("prefill", "decode")
    if phase == "prefill" or decodes(block)
]
runs = pytest.mark.parametrize(("block", "phase"), RUNS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def count(call) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def test_every_registered_shape_has_a_case():
    assert {block.kind for block in CASES} == set(BLOCKS) - {"noop"}


@runs
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp8"])
def test_every_shape_runs(block, phase, dtype):
    batch, length = 2, 16
    call = block_subject(block, phase, batch, length, dtype, "cpu").make()
    with torch.no_grad():
        first, second = call(), call()
    tokens = batch * (length if phase == "prefill" else 1)
    if isinstance(block, Conv2d):
        side = math.isqrt(length) // block.stride
        wanted = [(batch, block.outputs, side, side)]
    elif isinstance(block, Embedding):
        wanted = [(tokens, block.hidden)]
    elif isinstance(block, Head):
        rows = tokens if block.every_position else batch
        wanted = [(rows, block.vocab), (rows,)]
    else:
        assert isinstance(block, Attention | FFN | VitBlock | Linear | Norm)
        width = block.inputs if isinstance(block, Linear) else block.hidden
        wanted = [(tokens, width), (tokens, getattr(block, "outputs", width))]
    for outputs in (first, second):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert [tuple(tensor.shape) for tensor in outputs] == wanted
        assert all(tensor.isfinite().all() for tensor in outputs)
    # Always of the same work: a decode step does not grow its cache.
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@runs
@pytest.mark.parametrize(("batch", "length"), [(1, 16), (3, 64)])
def test_cpu_and_meta_count_the_flops_of_the_shape(block, phase, batch, length):
    on_cpu, on_meta = (
        count(block_subject(block, phase, batch, length, "fp32", device).make())
        for device in ("cpu", "meta")
    )
    wanted = block.prefill_flops if phase == "prefill" else block.decode_flops
    assert on_cpu == on_meta == wanted(batch, length)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]))
def test_maps_have_the_pixels_asked_for(height, width, stride):
    pixels = height * width * stride**2
    y, x = subjects._sides(pixels, stride)
    assert y * x == pixels and y % stride == x % stride == 0
    if height == width:
        assert y == x


def test_nothing_is_built_before_make(monkeypatch):
    built: list[Block] = []
    build = subjects.build
    monkeypatch.setattr(
        subjects, "build", lambda block, *a: built.append(block) or build(block, *a)
    )
    monkeypatch.setattr(subjects, "KVCache", None)  # would fail if it were used
    lazily = [block_subject(block, "prefill", 1, 16, "fp32", "cpu") for block in CASES]
    assert not built
    lazily[CASES.index(FFN(16, 32))].make()
    assert built == [FFN(16, 32)]


def held_by(monkeypatch, subject) -> float:
    """Bytes of the weights and caches that a subject makes."""
    held: list[int] = []
    build, empty = subjects.build, subjects.KVCache.empty

    def built(*args: Any):
        module = build(*args)
        held.append(sum(weight.nbytes for weight in module.parameters()))
        return module

    def emptied(*args: Any):
        cache = empty(*args)
        held.append(cache.nbytes)
        return cache

    monkeypatch.setattr(subjects, "build", built)
    monkeypatch.setattr(subjects.KVCache, "empty", staticmethod(emptied))
    subject.make()
    return sum(held)


@runs
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nbytes_cover_weights_and_caches(block, phase, dtype, monkeypatch):
    subject = block_subject(block, phase, 2, 64, dtype, "cpu")
    held = held_by(monkeypatch, subject)
    assert held > 0 and subject.nbytes >= held


# Chains turn through copies, so that weights come from memory as they do in a model.


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A device "cuda" whose subjects are built on the meta device."""
    for name in ("_maker", "_inputs", "_rotary"):
        real = getattr(subjects, name)

        def on_meta(*arguments, real=real):
            devices = [isinstance(a, str) and a == "cuda" for a in arguments]
            assert any(devices)
            given = zip(arguments, devices, strict=True)
            return real(*("meta" if is_device else a for a, is_device in given))

        monkeypatch.setattr(subjects, name, on_meta)


def copies_of(call) -> int:
    return len(call.calls) if isinstance(call, Rotation) else 1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("length", [16, 100_000])
@pytest.mark.parametrize(
    "block", [FFN(4096, 1408), FFN(4096, 14336), Head(4096, 128_256), Linear(4096, 4096)]
)
def test_copies_displace_each_other(block, phase, length, pretended_gpu):
    subject = block_subject(block, phase, 1, length, "bf16", "cuda")
    tokens = length if phase == "prefill" else 1
    touched, copies = block.prefill_bytes(1, tokens, "bf16"), copies_of(subject.make())
    assert copies == min(MAX_COPIES, math.ceil(WORKING_SET / touched))
    assert subject.nbytes >= copies * block.weight_bytes("bf16")


def test_a_cache_counts_as_touched(pretended_gpu):
    block = Attention(1024, 8, 8, 128)
    copies = [
        copies_of(block_subject(block, "decode", 16, length, "bf16", "cuda").make())
        for length in (400, 4000, 100_000)
    ]
    assert copies == [MAX_COPIES, math.ceil(WORKING_SET / block.decode_bytes(16, 4000, "bf16")), 1]


@pytest.mark.parametrize(
    "block", [Embedding(128_256, 8192), Attention(4096, 32, 8, 128, window=64)]
)
def test_copies_have_room(block, pretended_gpu):
    """Of a table of embeddings few rows are read, of a windowed cache few slots; all is held."""
    subject = block_subject(block, "decode", 8, 100_000, "bf16", "cuda")
    copies = copies_of(subject.make())
    assert copies < 10 and subject.nbytes < 2 * WORKING_SET


def test_a_small_model_stays_in_the_cache(pretended_gpu):
    block = FFN(256, 512)
    footprint = 2.5 * block.prefill_bytes(1, 1, "bf16")
    subject = block_subject(block, "decode", 1, 8, "bf16", "cuda", footprint)
    assert copies_of(subject.make()) == 3


def test_one_copy_on_a_cpu():
    assert not isinstance(
        block_subject(FFN(16, 32), "prefill", 1, 4, "fp32", "cpu").make(), Rotation
    )


def test_rotations_turn():
    rotation = Rotation([lambda i=i: i for i in range(3)])
    turns = [rotation() for _ in range(7)]
    assert sorted(turns[:3]) == [0, 1, 2] and turns[3:] == turns[:4]


# Whole engines.

STACK = decoder(16, 50, [(Attention(16, 4, 2, 8, window=5), FFN(16, 32))] * 2)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("length", [1, 9])
def test_engine_calls(phase, length, device):
    engine = Engine(STACK, "fp32", device)
    call = engine_call(engine, phase, 3, length)
    logits, ids_B = call()
    assert logits.shape == (3, 50) and ids_B.shape == (3,)
    if device == "cpu":
        assert logits.isfinite().all() and torch.equal(call()[0], logits)
        wanted = STACK.prefill_flops if phase == "prefill" else STACK.decode_flops
        assert count(call) == wanted(3, length)


def test_engines_are_made_when_they_are_needed():
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine(STACK, "fp32", "cpu"))
        return made[-1]

    subject = engine_subject("tiny", STACK, make, "decode", 2, 7, "fp32")
    assert not made and subject.row_key("eager").block == "tiny"
    # Weights, and keys and values of eight tokens of two sequences.
    assert subject.nbytes > STACK.weight_bytes("fp32") + STACK.cache_bytes(2, 8, "fp32")
    assert subject.make()()[0].shape == (2, 50) and len(made) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("block", [FFN(4096, 3584), Attention(4096, 32, 8, 128)])
def test_chains_exceed_the_cache(block, phase):
    cache = torch.cuda.get_device_properties("cuda").L2_cache_size
    before = torch.cuda.memory_allocated()
    subject = block_subject(block, phase, 1, 128, "bf16", "cuda")
    call = subject.make()
    held = torch.cuda.memory_allocated() - before
    assert isinstance(call, Rotation)
    assert held >= len(call.calls) * block.weight_bytes("bf16")
    assert held > 4 * cache
    assert held == pytest.approx(subject.nbytes, rel=0.1)


@pytest.mark.gpu
@torch.no_grad()
@runs
def test_every_shape_is_captured(block, phase):
    call = block_subject(block, phase, 2, 16, "bf16", "cuda").make()
    outputs: list[Any] = []
    capture(lambda: outputs.append(call()), torch.cuda.graph_pool_handle())()
    torch.cuda.synchronize()
    found = outputs[-1]
    assert all(x.isfinite().all() for x in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.gpu
def test_weights_come_from_memory():
    """One block of 35 MB, over and over, is faster from the cache than copies of it in turns."""
    block = FFN(4096, 1408)
    calls = {
        "cached": block_subject(block, "decode", 1, 8, "bf16", "cuda", footprint=1).make(),
        "turned": block_subject(block, "decode", 1, 8, "bf16", "cuda").make(),
    }
    timings = clock_for("cuda", "graph").compare(calls)
    assert timings.ratio("turned", "cached").median > 1.05
