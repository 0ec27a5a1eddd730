"""What fits a device, and the throughput of a server at the largest batch that does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.cost import (
    FFN,
    Analytic,
    Attention,
    DeviceSpec,
    MeasuredTable,
    NoOp,
    Origin,
    Roofline,
    Row,
    RowKey,
    decoder,
)
from adaptive.core.cost.footprint import GIB, fits, largest, memory_of
from adaptive.core.cost.models import MODELS
from adaptive.core.cost.parallel import AllReduce, TensorParallel
from adaptive.core.cost.serving import Serving
from adaptive.core.errors import UserError
from adaptive.core.hardware import DEVICES
from adaptive.core.workload import Workload

PARENT = MODELS["llama-3-70b"].stack()
CHILD = MODELS["nemotron-super-49b"].stack()
H100 = Roofline(DEVICES["h100-sxm"], kv_dtype="fp8")


def test_memory_of_llama_70b_on_one_h100():
    # 70.55 GB in fp8, of which embedding and head (and its norm) stay in bf16: 72.65 GB. A
    # sequence of 2048 tokens holds 2048 x 80 layers x 2 x 8 heads x 128 bytes = 320 MiB.
    memory = memory_of(PARENT, Workload(1, 1024, 1024), "fp8", kv_dtype="fp8")
    assert memory.weights == 70_553_706_496 + 2 * 128_256 * 8192 + 8192
    assert memory.cache == 320 * 2**20
    room = 80e9 - memory.weights - 1024 * 2 * (2 * 8192 + 3 * 28672)
    assert room // memory.cache == 21
    used = fits(PARENT, Workload(21, 1, 2047), "fp8", 80e9, kv_dtype="fp8")
    assert 80e9 - used.cache / 21 < used.total <= 80e9
    with pytest.raises(UserError, match="workload.batch=21 fits"):
        fits(PARENT, Workload(22, 1, 2047), "fp8", 80e9, kv_dtype="fp8")


def test_what_does_not_fit_says_by_how_much():
    with pytest.raises(UserError) as error:
        fits(PARENT, Workload(64, 2048, 2048), "fp8", 80e9, overhead_bytes=2 * GIB)
    memory = memory_of(PARENT, Workload(64, 2048, 2048), "fp8", overhead_bytes=2 * GIB)
    assert f"{(memory.total - 80e9) / GIB:.2f} GiB too much" in str(error.value)
    assert "weights 67.7, KV cache 80.0, activations 24.5, overhead 2.0" in str(error.value)
    # 74.51 GiB less 69.66; each sequence takes 1.25 of cache and 0.39 of activations.
    assert "workload.batch=2 fits" in str(error.value)
    with pytest.raises(UserError, match="not even workload.batch=1 fits.*tensor_parallel"):
        fits(PARENT, Workload(1, 8, 8), "bf16", 80e9)
    split = fits(PARENT, Workload(64, 2048, 2048), "fp8", 80e9, tensor_parallel=8)
    assert split.cache == pytest.approx(memory.cache / 8)


@given(limit=st.integers(0, 200), edge=st.integers(0, 300))
def test_bisection(limit, edge):
    assert largest(lambda n: n <= edge, limit) == min(limit, edge)


def serving(stack=CHILD, prompt=128, output=1024, degree=1, **options) -> Serving:
    model = options.pop("model", H100)
    if degree > 1:
        model = TensorParallel(model, degree, AllReduce(450e9, 5e-6))
    values = {"memory_bytes": 80e9, "kv_dtype": "fp8", **options}
    return Serving(stack, prompt, output, "fp8", model, **values)


@given(
    prompt=st.sampled_from([100, 2048]),
    output=st.sampled_from([1, 2, 500]),
    degree=st.sampled_from([1, 2, 8]),
    gib=st.integers(60, 140),
    paged=st.booleans(),
)
def test_the_largest_batch_just_fits(prompt, output, degree, gib, paged):
    server = serving(
        prompt=prompt, output=output, degree=degree, memory_bytes=gib * GIB, paged=paged
    )
    batch = server.largest_batch()
    assert server.memory(batch).total <= gib * GIB < server.memory(batch + 1).total


def test_throughput_is_a_turn_of_all_slots():
    """The formula of the module, from single steps of the roofline."""
    server = serving(output=101, prefill_tokens=128)
    point = server.at(50)

    def total(phase, batch, length):
        return sum(getattr(H100, phase)(b, batch, length, "fp8") for b in CHILD.parts())

    steps = sum(total("decode", 50, n) for n in range(128, 228))
    turn = 50 * total("prefill", 1, 128) + steps
    assert point.tokens_per_second == pytest.approx(50 * 101 / turn, rel=1e-3)
    assert point.seconds_per_token == pytest.approx(turn / 101, rel=1e-3)
    assert point.prefill_share == pytest.approx(1 - steps / turn, rel=1e-2)
    assert (point.how, point.prefill_batch, point.tensor_parallel) == ("bound", 1, 1)


@given(batch=st.integers(1, 400), prompt=st.sampled_from([128, 2048]))
def test_more_slots_generate_more_and_each_waits_longer(batch, prompt):
    server = serving(prompt=prompt)
    few, many = server.at(batch), server.at(2 * batch)
    assert many.tokens_per_second >= few.tokens_per_second * (1 - 1e-9)
    assert many.seconds_per_token >= few.seconds_per_token * (1 - 1e-9)


def test_memory_decides():
    """A smaller cache per token and lighter weights let a larger batch in; paging a larger one."""
    parent, child = serving(PARENT).best(), serving(CHILD).best()
    assert (parent.limit, child.limit) == ("memory", "memory")
    assert child.batch > 5 * parent.batch
    assert child.tokens_per_second > 4 * parent.tokens_per_second
    paged = serving(PARENT, paged=True).best()
    assert paged.batch > 1.6 * parent.batch
    capped = serving(PARENT, max_batch=8).best()
    assert (capped.batch, capped.limit) == (8, "max_batch")
    with pytest.raises(UserError, match="not even one request fits"):
        serving(PARENT, memory_bytes=70e9).best()


def test_devices_share_weights_and_pay_for_it():
    together = serving(PARENT, degree=4)
    point = together.at(64)
    assert point.memory.weights == pytest.approx(together.stack.weight_bytes("fp8") / 4, rel=1e-3)
    # Four devices generate less than four times what one would with room for as much.
    assert point.tokens_per_second < serving(PARENT).at(64).tokens_per_second
    free = TensorParallel(H100, 4, AllReduce(1e30))
    assert serving(PARENT, model=free).at(64).tokens_per_second > point.tokens_per_second


def test_removed_blocks_need_no_cache():
    stack = decoder(64, 100, [(NoOp(), FFN(64, 128))] * 2)
    server = serving(stack, memory_bytes=2**20)
    assert server.memory(3).cache == 0
    assert server.best().limit == "memory"


@pytest.mark.parametrize("name", ["prompt", "output", "prefill_tokens", "max_batch"])
def test_bad_settings(name):
    with pytest.raises(UserError, match=f"serving.{name}=0 must be at least 1"):
        serving(**{name: 0})


# A tiny model measured at prefill batches 1 and 4, decode batches 1 to 16; 19 is the mean context
# of 21 tokens after 10.
ATTENTION, WIDE = Attention(64, 4, 2, 16), FFN(64, 256)
TINY = decoder(64, 100, [(ATTENTION, WIDE)] * 2)
FLOORS = {"attention": 1e-4, "ffn": 2e-4, "embedding": 1e-5, "head": 3e-5}


def table(decode_seconds=lambda batch: 1.0) -> MeasuredTable:
    """Times that depend on the batch through ``decode_seconds`` alone."""
    rows = {}
    for block in dict.fromkeys(TINY.parts()):
        for batch in (1, 2, 4, 8, 16):
            keys = [RowKey.of(block, "decode", batch, n, "bf16", "graph") for n in (10, 19, 40)]
            if batch in (1, 4):
                keys.append(RowKey.of(block, "prefill", batch, 10, "bf16", "graph"))
            for key in keys:
                rows.setdefault(key, Row(key, FLOORS[block.kind] * decode_seconds(batch)))
        if block.pointwise:  # prefills of one and four prompts
            for tokens in (10, 40):
                key = RowKey.of(block, "decode", tokens, 1, "bf16", "graph")
                rows[key] = Row(key, FLOORS[block.kind])
    return MeasuredTable(Origin("gpu", "2.15.0", 0), rows.values(), mode="graph")


def test_a_table_limits_the_batch():
    server = Serving(TINY, 10, 21, "bf16", table(), 1e9, prefill_tokens=40)
    point = server.best()
    # Attention has times up to 16 sequences.
    assert (point.batch, point.limit, point.how) == (16, "table", "measured")
    assert point.prefill_batch == 4
    step = 2 * (1e-4 + 2e-4) + 1e-5 + 3e-5
    assert point.tokens_per_second == pytest.approx(16 * 21 / (16 / 4 * step + 20 * step), rel=1e-6)
    held = replace(server, memory_bytes=server.memory(11).total).best()
    assert (held.batch, held.limit, held.how) == (11, "memory", "interpolated")


def test_a_table_whose_large_batches_are_slow():
    slow = table(lambda batch: 1.0 if batch <= 8 else 100.0)
    point = Serving(TINY, 10, 21, "bf16", slow, 1e9, prefill_tokens=10).best()
    assert (point.batch, point.limit) == (8, "throughput")


def test_what_a_table_lacks_is_named():
    with pytest.raises(UserError, match="no graph bf16 time of .* prefill"):
        Serving(TINY, 11_000, 21, "bf16", table(), 1e9).best()
    with pytest.raises(UserError, match="Analytic does not time single steps"):
        Serving(TINY, 10, 21, "bf16", Analytic(), 1e9).best()


def test_sliding_windows_bend_the_mean_context():
    """Contexts beyond the window cost alike: the mean context of all would be too dear."""
    spec = DeviceSpec("slow", "cuda", 1e9, 1e9, {"bf16": 1e18})
    windowed = decoder(64, 100, [(replace(ATTENTION, window=20), NoOp())])
    point = Serving(windowed, 10, 101, "bf16", Roofline(spec), 1e9).at(4)
    steps = [
        sum(Roofline(spec).decode(b, 4, n, "bf16") for b in windowed.parts())
        for n in range(10, 110)
    ]
    decode = point.seconds_per_token * 101 * (1 - point.prefill_share)
    assert decode == pytest.approx(sum(steps), rel=5e-3)


def test_the_experiment_prints_and_writes(tmp_path, capsys):
    from adaptive.experiments.nemotron_throughput import PAPER, main

    out = tmp_path / "result.json"
    main(["--roofline", "--degrees", "1", "4", "--out", str(out)])
    text = capsys.readouterr().out
    assert text.startswith(
        "UPPER BOUNDS of tokens/s and GPU from the roofline of h100-sxm, fp8 cache"
    )
    assert all(f"{row.prompt:>5}/{row.output}" in text for row in PAPER)
    result = json.loads(out.read_text())
    assert result["bound"] and len(result["scenarios"]) == 5
    for row, scenario in zip(PAPER, result["scenarios"], strict=True):
        # Bounds lie above what was measured, the 49B above its parent.
        assert scenario["parent.best"]["tokens_per_second"] > row.parent
        assert scenario["child.best"]["tokens_per_second"] > row.child
        assert 1.3 < scenario["ratio"] < 6
        assert scenario["paper"]["ratio"] == pytest.approx(row.child / row.parent, abs=0.03)


def test_links_of_other_degrees_are_borrowed_and_shipped_tables_are_the_default(tmp_path, capsys):
    from adaptive.experiments.nemotron_throughput import main

    link, out = tmp_path / "link.json", tmp_path / "result.json"
    link.write_text(json.dumps({"device": "a GPU", "times": {"2": [[1e3, 1e-5], [1e9, 4e-3]]}}))
    main(["--degrees", "1", "4", "--all-reduce", str(link), "--out", str(out)])
    text = capsys.readouterr().out
    assert text.startswith("Predictions of tokens/s and GPU from the shipped tables")
    assert "measured between 2 GPUs (a GPU); 4 are taken to send as many bytes in as long" in text
    result = json.loads(out.read_text())
    assert not result["bound"]
    # The paper has 2.07 for 128/128 on one GPU each, and 5.08 for 128/1024.
    ratios = [scenario["ratio.one_device"] for scenario in result["scenarios"]]
    assert ratios[0] == pytest.approx(2.07, rel=0.1) and ratios[1] == pytest.approx(5.08, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--roofline", "--memory", "20GiB", "--degrees", "2"], "GiB too much"),
        (["--roofline", "--memory", "much"], "--memory='much' is not a quantity"),
        (["--table", "none.csv"], "cannot read the cost table"),
        (["--roofline", "--all-reduce", "none.json"], "--all-reduce: cannot read none.json"),
        (["--roofline", "--device", "h101"], "unknown device 'h101'"),
    ],
)
def test_the_experiment_refuses_in_one_sentence(arguments, named, capsys):
    from adaptive.experiments.nemotron_throughput import main

    with pytest.raises(SystemExit):
        main(arguments)
    assert named in capsys.readouterr().err


def test_engines_keep_what_a_sliding_window_has_left():
    stack = decoder(64, 100, [(Attention(64, 4, 2, 16, window=32), FFN(64, 128))] * 2)
    work = Workload(3, 100, 28)
    ring, whole = (memory_of(stack, work, "bf16", ring=ring) for ring in (True, False))
    assert (ring.cache, whole.cache) == (2 * 3 * 32 * 128, 2 * 3 * 128 * 128)
    assert ring.weights == whole.weights and ring.activations == whole.activations
    assert memory_of(stack, work, "bf16", stride=128).cache == ring.cache
