"""Analytic costs and rooflines over whole workloads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost import (
    FFN,
    Analytic,
    Attention,
    CostModel,
    DeviceSpec,
    NoOp,
    Roofline,
    decode_contexts,
    decoder,
    model_cost,
)
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES
from adaptive.core.workload import Workload

ATTENTION, WIDE = Attention(4096, 32, 8, 128), FFN(4096, 14336)
H100 = Roofline(DEVICES["h100-sxm"])
workloads = st.builds(
    Workload, batch=st.integers(1, 256), prompt=st.integers(1, 3000), output=st.integers(0, 300)
)


def test_the_first_token_comes_from_the_prefill():
    assert decode_contexts(Workload(1, 100, 3)) == (2, 100, 101)
    assert decode_contexts(Workload(1, 100, 1))[0] == 0
    assert decode_contexts(Workload(1, 100, 0))[0] == 0


@given(workload=workloads)
def test_analytic_flops_are_the_sum_of_the_steps(workload):
    steps, first, _ = decode_contexts(workload)
    expected = ATTENTION.prefill_flops(workload.batch, workload.prompt) + sum(
        ATTENTION.decode_flops(workload.batch, first + i) for i in range(steps)
    )
    assert Analytic().cost(ATTENTION, workload, "bf16")["flops"] == pytest.approx(expected)


@given(workload=workloads, dtype=st.sampled_from(["bf16", "fp8"]))
def test_roofline_is_the_sum_of_the_steps(workload, dtype):
    steps, first, _ = decode_contexts(workload)
    expected = H100.prefill(ATTENTION, workload.batch, workload.prompt, dtype) + sum(
        H100.decode(ATTENTION, workload.batch, first + i, dtype) for i in range(steps)
    )
    assert H100.cost(ATTENTION, workload, dtype)["latency"] == pytest.approx(expected)


def test_memory_is_weights_and_cache():
    stack = decoder(4096, 128_256, [(ATTENTION, WIDE)] * 32)
    cost = model_cost(stack, Workload(4, 1000, 24), "bf16", Analytic())
    assert cost["params"] == 8_030_261_248
    assert cost["memory"] == 2 * 8_030_261_248 + 4 * 1024 * 131_072
    # 8 bit weights sit beside a bf16 cache unless the cache is quantised as well.
    quantised = model_cost(stack, Workload(4, 1000, 24), "fp8", Analytic(kv_dtype="fp8"))
    ends = 2 * 128_256 * 4096 + 4096  # embedding, head and its norm stay in bf16
    assert quantised["memory"] == cost["memory"] / 2 + ends
    mixed = model_cost(stack, Workload(4, 1000, 24), "fp8", Analytic())
    assert mixed["memory"] == 8_030_261_248 + ends + 4 * 1024 * 131_072


def test_sliding_windows_bound_cache_and_arithmetic():
    full, windowed = ATTENTION, replace(ATTENTION, window=512)
    work = Workload(2, 500, 101)  # contexts 500..599: the kink is inside
    counts = [windowed.decode_flops(2, context) for context in range(500, 600)]
    cost = Analytic().cost(windowed, work, "bf16")
    assert cost["flops"] == windowed.prefill_flops(2, 500) + sum(counts)
    assert cost["memory"] == windowed.weight_bytes("bf16") + 2 * 512 * 4096
    assert counts[11] == full.decode_flops(2, 511) == counts[-1] < full.decode_flops(2, 512)
    bound = H100.cost(windowed, work, "bf16")["latency"]
    steps = sum(H100.decode(windowed, 2, context, "bf16") for context in range(500, 600))
    assert bound == pytest.approx(H100.prefill(windowed, 2, 500, "bf16") + steps)


@pytest.mark.parametrize("model", [Analytic(), H100], ids=["analytic", "roofline"])
def test_protocol(model: CostModel):
    cost = model.cost(NoOp(), Workload(8, 128, 128), "bf16")
    assert cost == dict.fromkeys(model.resources, 0.0)
    assert model.is_bound == isinstance(model, Roofline)


def test_roofline_of_one_decode_step():
    # Batch 1 moves the weights: 176,164,864 parameters of 2 bytes and two rows of 4096.
    moved = 2 * (176_164_864 + 2 * 4096)
    assert H100.decode(WIDE, 1, 0, "bf16") == pytest.approx(moved / 3.35e12)
    # Batch 1024 is bound by arithmetic.
    flops = 1024 * 2 * 3 * 4096 * 14336
    assert H100.decode(WIDE, 1024, 0, "bf16") == pytest.approx(flops / 989.5e12)


def test_roofline_refuses_what_the_device_table_lacks():
    with pytest.raises(UserError, match="no roofline for int4 on h100-sxm.*compute_dtype"):
        H100.cost(WIDE, Workload(1, 8, 8), "int4")
    weight_only = Roofline(DEVICES["h100-sxm"], compute_dtype="bf16")
    four_bit = weight_only.decode(WIDE, 1, 0, "int4")
    assert four_bit < H100.decode(WIDE, 1, 0, "bf16") / 3
    unknown = Roofline(DeviceSpec("mystery", "cuda", 1e9, None))
    with pytest.raises(UserError, match="its table has nothing"):
        unknown.cost(WIDE, Workload(1, 8, 8), "bf16")
