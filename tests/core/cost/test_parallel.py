"""Shards of blocks and what they exchange."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost import (
    FFN,
    Analytic,
    Attention,
    Conv2d,
    CostModel,
    Embedding,
    Head,
    Linear,
    MeasuredTable,
    NoOp,
    Norm,
    Origin,
    Roofline,
    Row,
    RowKey,
    Stack,
    model_cost,
)
from adaptive.core.cost.models import MODELS
from adaptive.core.cost.parallel import AllReduce, TensorParallel, step_time
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES
from adaptive.core.workload import Workload

degrees = st.sampled_from([1, 2, 4, 8])
flags = st.booleans()


@st.composite
def attentions(draw):
    kv = draw(st.sampled_from([1, 2, 4, 8, 16]))
    heads = kv * draw(st.sampled_from([1, 2, 4])) * 8
    return Attention(
        draw(st.integers(1, 500)),
        heads,
        kv,
        draw(st.integers(1, 64)),
        bias=draw(flags),
        out_bias=draw(flags),
        qk_norm=draw(flags),
        norm=draw(flags),
        norm_bias=draw(flags),
        window=draw(st.sampled_from([0, 100])),
    )


@given(block=attentions(), degree=degrees, batch=st.integers(1, 9), length=st.integers(1, 300))
def test_attention_is_divided(block, degree, batch, length):
    part = block.shard(degree)
    # Fewer KV heads than devices are copied, everything else of the matrices is divided.
    copied = max(degree, block.kv_heads) - block.kv_heads
    assert degree * part.kv_heads == block.kv_heads + copied
    extra = 2 * copied * block.head_dim * (block.hidden + block.bias)
    whole_everywhere = (
        block.norm * (1 + block.norm_bias) + block.out_bias
    ) * block.hidden + block.qk_norm * 2 * block.head_dim
    assert degree * part.params() == block.params() + extra + (degree - 1) * whole_everywhere
    projections = 4 * copied * block.head_dim * block.hidden
    for count in ("prefill_flops", "decode_flops"):
        tokens = batch * (length if count == "prefill_flops" else 1)
        together = degree * getattr(part, count)(batch, length)
        assert together == getattr(block, count)(batch, length) + tokens * projections
    share = 1 + copied / block.kv_heads
    assert degree * part.cache_bytes(batch, length, "bf16") == pytest.approx(
        share * block.cache_bytes(batch, length, "bf16")
    )


POINTWISE = [
    (FFN(64, 160, bias=True, norm_bias=True), 64 + 2 * 64),  # output bias and norm
    (FFN(64, 160, gated=False), 64),
    (Linear(64, 48, bias=True), 64),
    (Embedding(96, 64, positions=7), 7 * 64),
    (Head(64, 96, bias=True), 64),
    (Head(64, 96, tied=True), 64),
    (Norm(64), 64),
    (NoOp(), 0),
]


@pytest.mark.parametrize(
    ("block", "copied"), POINTWISE, ids=lambda value: getattr(value, "kind", "")
)
@given(degree=degrees, batch=st.integers(1, 9), length=st.integers(1, 300))
def test_pointwise_blocks_are_divided(block, copied, degree, batch, length):
    part = block.shard(degree)
    assert degree * part.params() == block.params() + (degree - 1) * copied
    assert degree * part.prefill_flops(batch, length) == block.prefill_flops(batch, length)
    assert degree * part.decode_flops(batch, length) == block.decode_flops(batch, length)


@pytest.mark.parametrize("name", ["llama-3-70b", "nemotron-super-49b"])
def test_shards_of_whole_models(name):
    stack = MODELS[name].stack()
    assert stack.shard(1) is stack
    part = stack.shard(8)
    assert len(part.blocks) == len(stack.blocks)
    kept = sum(b.kind != "noop" for b in stack.blocks[1:])  # each has one norm of 8192
    assert 8 * part.params() == stack.params() + 7 * kept * 8192
    assert 8 * part.kv_bytes_per_token("fp8") == stack.kv_bytes_per_token("fp8")
    assert part.blocks[1].key() == "attention(h=8192,heads=8,kv=1,d=128)"


@pytest.mark.parametrize(
    ("block", "degree", "named"),
    [
        (Attention(64, 6, 2, 16), 4, "tensor_parallel=4 does not divide heads=6"),
        (Attention(64, 12, 6, 16), 4, "does not divide kv_heads=6"),
        (FFN(64, 90), 4, "does not divide intermediate=90"),
        (Linear(64, 10), 4, "does not divide outputs=10"),
        (Embedding(99, 64), 2, "does not divide vocab=99"),
        (Head(64, 99), 2, "does not divide vocab=99"),
        (Stack((FFN(64, 90),)), 4, "does not divide intermediate=90"),
        (Conv2d(3, 8, 3), 2, "does not cut conv2d blocks: set tensor_parallel=1"),
        (FFN(64, 90), 0, "tensor_parallel=0 must be a whole number >= 1"),
        (FFN(64, 90), True, "tensor_parallel=True must be"),
    ],
)
def test_what_does_not_divide_is_refused(block, degree, named):
    with pytest.raises(UserError, match=named):
        block.shard(degree)


def test_ring_all_reduce():
    link = AllReduce(bandwidth=450e9, latency=10e-6)
    # 8 devices: each sends 2 x 7/8 of the bytes.
    assert link.seconds(450e6, 8) == pytest.approx(10e-6 + 1.75e-3)
    assert link.gather_seconds(450e6, 8) == pytest.approx(10e-6 + 0.875e-3)
    assert link.seconds(450e6, 1) == link.gather_seconds(450e6, 1) == 0.0


@given(
    bandwidth=st.floats(1e9, 1e12),
    latency=st.floats(0, 1e-3),
    degree=st.integers(2, 16),
    sizes=st.lists(st.integers(1, 2**30), min_size=2, max_size=8, unique=True),
)
def test_fit_recovers_a_ring(bandwidth, latency, degree, sizes):
    link = AllReduce(bandwidth, latency)
    fitted = AllReduce.fit([(n, link.seconds(n, degree)) for n in sizes], degree)
    for n in sizes:
        assert fitted.seconds(n, degree) == pytest.approx(link.seconds(n, degree), rel=1e-4)


def test_measured_sizes_keep_their_times():
    """A library that changes its protocol between sizes is on no line; the points are kept."""
    points = [(1 << 12, 8e-6), (1 << 16, 9e-6), (1 << 20, 60e-6), (1 << 24, 1e-4)]
    link = AllReduce.fit([*points, (1 << 12, 7e-6), (1 << 12, 30e-6)], 4)
    for nbytes, seconds in points:
        assert link.seconds(nbytes, 4) == pytest.approx(seconds)
        assert link.gather_seconds(2 * nbytes, 4) == pytest.approx(seconds)
    assert link.seconds(1, 4) == pytest.approx(8e-6)
    half_way = link.seconds(((1 << 20) + (1 << 24)) / 2, 4)
    assert half_way == pytest.approx(80e-6)
    beyond = 1.5 * ((1 << 30) - (1 << 24)) / link.bandwidth
    assert link.seconds(1 << 30, 4) == pytest.approx(1e-4 + beyond)
    assert link.error > 0.2


def test_a_line_is_what_it_is_fitted_to():
    link = AllReduce(450e9, 5e-6)
    assert link.error == 0
    fitted = AllReduce.fit([(n, link.seconds(n, 2)) for n in (1 << 12, 1 << 20, 1 << 28)], 2)
    assert fitted.error < 1e-6
    assert (fitted.bandwidth, fitted.latency) == pytest.approx((450e9, 5e-6))


def test_fit_takes_no_negative_latency():
    fitted = AllReduce.fit([(1e6, 0.9e-5), (1e8, 1e-3), (2e8, 2e-3)], 2)
    assert fitted.latency == 0.0
    assert fitted.bandwidth == pytest.approx(1e11, rel=0.05)


@pytest.mark.parametrize(
    ("points", "degree", "named"),
    [
        ([], 2, "at least two sizes"),
        ([(8, 1.0), (8, 1.1)], 2, "at least two sizes"),
        ([(8, 1.0), (16, 0.0)], 2, "positive times"),
        ([(8, 1.0), (16, 0.5)], 2, "do not get slower with size"),
        ([(8, 1.0), (16, 2.0)], 1, "at least two devices"),
    ],
)
def test_bad_measurements_of_a_link(points, degree, named):
    with pytest.raises(UserError, match=named):
        AllReduce.fit(points, degree)


@pytest.mark.parametrize(("bandwidth", "latency"), [(0, 0), (1e9, -1), (float("nan"), 0)])
def test_impossible_links(bandwidth, latency):
    with pytest.raises(UserError, match="all-reduce: bandwidth"):
        AllReduce(bandwidth, latency)


H100 = Roofline(DEVICES["h100-sxm"])
ATTENTION, WIDE = Attention(8192, 64, 8, 128), FFN(8192, 28672)


def test_cost_is_the_shards_and_the_exchange():
    link = AllReduce(450e9, 5e-6)
    model = TensorParallel(H100, 4, link)
    work = Workload(16, 100, 11)
    for block in (ATTENTION, WIDE, Embedding(128_256, 8192)):
        alone = H100.cost(block.shard(4), work, "fp8")["latency"]
        exchange = link.seconds(1600 * 8192 * 2, 4) + 10 * link.seconds(16 * 8192 * 2, 4)
        assert model.cost(block, work, "fp8")["latency"] == pytest.approx(alone + exchange)
    # The head makes logits of the last position alone: 16 tokens in prefill as in decode.
    head = Head(8192, 128_256)
    alone = H100.cost(head.shard(4), work, "fp8")["latency"]
    exchange = 11 * link.gather_seconds(16 * 128_256 * 2, 4)
    assert model.cost(head, work, "fp8")["latency"] == pytest.approx(alone + exchange)
    linear = Linear(8192, 8192)
    alone = H100.cost(linear.shard(4), work, "fp8")["latency"]
    exchange = link.gather_seconds(1600 * 8192 * 2, 4) + 10 * link.gather_seconds(16 * 8192 * 2, 4)
    assert model.cost(linear, work, "fp8")["latency"] == pytest.approx(alone + exchange)
    assert model.cost(NoOp(), work, "fp8") == {"latency": 0.0}


@pytest.mark.parametrize("inner", [Analytic(), H100], ids=["analytic", "roofline"])
def test_protocol(inner):
    model = TensorParallel(inner, 2, AllReduce(450e9))
    assert isinstance(model, CostModel)
    assert (model.resources, model.is_bound) == (inner.resources, inner.is_bound)
    work = Workload(4, 64, 8)
    alone = TensorParallel(inner, 1, AllReduce(1.0, 1.0))  # one device exchanges nothing
    assert alone.cost(WIDE, work, "fp8") == inner.cost(WIDE, work, "fp8")
    with pytest.raises(UserError, match="tensor_parallel=0"):
        TensorParallel(inner, 0, AllReduce(450e9))


def test_only_latency_pays_for_the_exchange():
    stack = MODELS["llama-3-70b"].stack()
    work = Workload(2, 100, 10)
    cost = model_cost(stack, work, "fp8", TensorParallel(Analytic(), 4, AllReduce(450e9)))
    assert cost == model_cost(stack.shard(4), work, "fp8", Analytic())


@pytest.mark.parametrize("degree", [2, 8])
def test_a_workload_is_the_sum_of_its_steps(degree):
    model = TensorParallel(H100, degree, AllReduce(450e9, 5e-6))
    for block in (ATTENTION, replace(ATTENTION, window=105), WIDE, Head(8192, 128_256), NoOp()):
        steps = [step_time(model, block, "decode", 4, n, "fp8").seconds for n in range(100, 119)]
        prefill = step_time(model, block, "prefill", 4, 100, "fp8").seconds
        total = model.cost(block, Workload(4, 100, 20), "fp8")["latency"]
        assert total == pytest.approx(prefill + sum(steps))


def test_a_stack_exchanges_what_its_blocks_do():
    model = TensorParallel(H100, 2, AllReduce(450e9, 5e-6))
    pair = Stack((ATTENTION, WIDE))
    whole = model.communication(pair, "prefill", 2, 50, "fp8")
    assert whole == 2 * model.communication(WIDE, "prefill", 2, 50, "fp8") > 0


def test_tables_hold_times_of_shards():
    key = RowKey.of(WIDE.shard(4), "decode", 16, 0, "fp8", "graph")
    table = MeasuredTable(Origin("h100", "2.15.0", 0), [Row(key, 1e-3)], mode="graph")
    link = AllReduce(450e9, 5e-6)
    found = step_time(TensorParallel(table, 4, link), WIDE, "decode", 16, 300, "fp8")
    assert found == (pytest.approx(1e-3 + link.seconds(16 * 8192 * 2, 4)), "measured")
    with pytest.raises(UserError, match=r"no graph fp8 time of ffn\(h=8192,i=14336\)"):
        step_time(TensorParallel(table, 2, link), WIDE, "decode", 16, 300, "fp8")


def test_counts_are_no_times():
    with pytest.raises(UserError, match="Analytic does not time single steps"):
        step_time(Analytic(), WIDE, "decode", 1, 1, "fp8")
