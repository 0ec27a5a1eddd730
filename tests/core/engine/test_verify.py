"""The promise against the fact, on a CPU and on machines that are made up."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch

from adaptive.core.cost import (
    FFN,
    Attention,
    Linear,
    MeasuredTable,
    NoOp,
    Origin,
    Row,
    RowKey,
    Stack,
    decoder,
)
from adaptive.core.cost.models import MODELS
from adaptive.core.engine import CONTEXT_STRIDE, Engine
from adaptive.core.engine import verify as module
from adaptive.core.engine.verify import (
    Component,
    Verification,
    Verifier,
    check_fits,
    forward_latency,
    model_latency,
    stride_of,
    verify,
)
from adaptive.core.errors import UserError
from adaptive.core.hardware import CpuClock, clock_for
from adaptive.core.hardware.clock import Clock
from adaptive.core.workload import Workload

H, VOCAB = 16, 50
GQA, FFN_, LINEAR = Attention(H, 4, 2, 4), FFN(H, 32), Linear(H, H)
PARENT = decoder(H, VOCAB, [(GQA, FFN_)] * 3)
CHILD = decoder(H, VOCAB, [(GQA, NoOp()), (LINEAR, FFN_), (NoOp(), NoOp())])
ORIGIN = Origin("test-cpu", "2.15.0", 1)


def seconds_of(key: RowKey) -> float:
    """Any function of the key that no two blocks or sizes share."""
    return 1e-4 * (1 + len(key.block)) * (1 + key.batch) * (1 + 0.01 * key.length)


def table(*stacks: Stack, mode: str = "eager", stride: int = 1) -> MeasuredTable:
    """Times by formula at corners that hold every size below 128 of up to 4 sequences."""
    keys = {
        RowKey.of(block, phase, batch, length, "fp32", mode)
        for stack in stacks
        for block in set(stack.parts()) - {NoOp()}
        for phase in ("prefill", "decode")
        for batch, length in itertools.product((1, 2, 3, 4), (0, 1, 5, 10, 127, 255))
        if phase == "decode" or length
    }
    rows = [Row(key, seconds_of(key)) for key in keys]
    return MeasuredTable(ORIGIN, rows, mode=mode, context_stride=stride)


pytestmark = pytest.mark.usefixtures("frozen_modules")


# --- sums over blocks ---


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_forward_is_the_sum_of_its_blocks(phase):
    parts = [part for part in CHILD.parts() if part != NoOp()]
    assert len(parts) == 5
    expected = sum(seconds_of(RowKey.of(p, phase, 2, 10, "fp32", "eager")) for p in parts)
    found = forward_latency(table(CHILD), CHILD, phase, 2, 10, "fp32")
    assert found.seconds == pytest.approx(expected) and found.how == "measured"
    between = forward_latency(table(CHILD), CHILD, phase, 2, 7, "fp32")
    assert between.how == "interpolated"


def test_a_workload_is_its_prefill_and_every_step():
    costs, work = table(PARENT), Workload(2, 5, 4)
    steps = [forward_latency(costs, PARENT, "decode", 2, n, "fp32").seconds for n in (5, 6, 7)]
    prefill = forward_latency(costs, PARENT, "prefill", 2, 5, "fp32").seconds
    found = model_latency(costs, PARENT, work, "fp32")
    assert found.seconds == pytest.approx(prefill + sum(steps)) and found.how == "interpolated"


def test_removed_layers_cost_nothing_and_need_no_rows():
    empty = decoder(H, VOCAB, [(NoOp(), NoOp())] * 4)
    ends = decoder(H, VOCAB, [])
    costs = table(ends)
    for work in (Workload(2, 5, 4), Workload(1, 10)):
        found = model_latency(costs, empty, work, "fp32").seconds
        assert found == model_latency(costs, ends, work, "fp32").seconds


# --- a real run ---


@pytest.fixture(scope="module")
def run() -> Verification:
    return verify(CHILD, Workload(2, 5, 6), table(CHILD), clock_for("cpu"), "fp32", seconds=0.05)


def test_every_component_is_promised_and_measured(run):
    names = [component.name for component in run.components]
    assert names == ["prefill", "first step", "last step", "generation", "memory"]
    for component in run.components:
        assert component.predicted > 0 and component.measured > 0
        assert math.isfinite(component.error) and component.error > -1
        assert component.error == component.predicted / component.measured - 1
        assert run[component.name] is component
    with pytest.raises(StopIteration):
        run["training"]


def test_the_promises_are_the_tables(run):
    costs = table(CHILD)
    for name, phase, length in (
        ("prefill", "prefill", 5),
        ("first step", "decode", 5),  # reads the first new token, five are cached
        ("last step", "decode", 9),  # and the fifth: the sixth is not read
    ):
        found = forward_latency(costs, CHILD, phase, 2, length, "fp32")
        assert (run[name].predicted, run[name].how) == found
    assert run["generation"].predicted == model_latency(costs, CHILD, run.workload, "fp32").seconds


def test_times_are_in_proportion(run):
    """Loosely: a generation of six tokens is a prefill and five steps."""
    whole = run["prefill"].measured + 5 * run["first step"].measured
    assert 0.2 * whole < run["generation"].measured < 20 * whole


def test_memory_on_a_cpu_is_exact(run):
    weights = 4 * CHILD.params()
    cache = 4 * 2 * 2 * 2 * 4 * (5 + 6)  # bytes, K and V, sequences, heads, head size, tokens
    assert run["memory"].measured == weights + cache
    assert run["memory"].error == 0 and run["memory"].how == "measured"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_is_exact_for_any_dtype_and_tied_heads(dtype, tied):
    stack = decoder(H, VOCAB, [(GQA, FFN_), (LINEAR, NoOp())], tied=tied)
    costs = table(stack)
    rows = [Row(row.key._replace(dtype=dtype), row.seconds) for row in costs]
    costs = MeasuredTable(ORIGIN, rows)
    found = verify(stack, Workload(1, 3, 4), costs, clock_for("cpu"), dtype, seconds=0.01)
    assert found["memory"].error == 0


@pytest.mark.parametrize(
    ("work", "names"),
    [
        (Workload(2, 5), ["prefill"]),
        (Workload(2, 5, 1), ["prefill", "generation", "memory"]),
        (Workload(2, 0, 5), ["first step", "last step"]),
        (Workload(2, 5, 2), ["prefill", "first step", "last step", "generation", "memory"]),
    ],
)
def test_only_what_a_workload_has_is_measured(work, names):
    found = verify(CHILD, work, table(CHILD), clock_for("cpu"), "fp32", seconds=0.01)
    assert [component.name for component in found.components] == names
    assert found.workload == work and found.dtype == "fp32"


def test_an_engine_that_is_there_is_used(monkeypatch):
    engine = Engine(CHILD, "fp32", "cpu")
    monkeypatch.setattr(module, "Engine", None)  # would fail if it were called
    clock = clock_for("cpu")
    found = verify(CHILD, Workload(1, 3), table(CHILD), clock, "fp32", engine=engine, seconds=0.01)
    assert found["prefill"].measured > 0


def test_what_the_table_lacks_is_refused_with_its_sizes():
    clock = clock_for("cpu")
    with pytest.raises(UserError, match=r"no eager fp32 time of .*length 300: measured are"):
        verify(CHILD, Workload(1, 300), table(CHILD), clock, "fp32", seconds=0.01)


def test_rows_are_texts(run):
    rows = run.rows()
    assert [row["component"] for row in rows] == [c.name for c in run.components]
    assert all(isinstance(value, str) for row in rows for value in row.values())
    for row in rows:
        unit = "iB|KB|MB|B" if row["component"] == "memory" else "s"
        for column in ("predicted", "measured"):
            assert re.search(rf"\d.*({unit})$", row[column]), row
        assert re.fullmatch(r"[+-]\d+\.\d %", row["error"])
    assert rows[-1]["error"] == "+0.0 %" and rows[-1]["from"] == "measured"
    [row] = Verification(run.workload, "fp32", (Component("prefill", 1.5, 2.0, "measured"),)).rows()
    assert row["error"] == "-25.0 %"


# --- memory is asked before it is taken ---


@pytest.fixture
def free(monkeypatch):
    """Sets the free bytes of a GPU that is not there."""

    def set_free(nbytes: float) -> None:
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(nbytes), 80 * 2**30))

    return set_free


LLAMA = MODELS["llama-3-8b"].stack()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_what_does_not_fit_is_refused_in_gib(free, device):
    free(20 * 2**30)
    with pytest.raises(UserError) as refusal:
        check_fits(LLAMA, Workload(64, 1024, 1024), "bf16", device)
    sentence = str(refusal.value)
    found = re.search(r"needs ([\d.]+) GiB .* of a device's 20.00 GiB, ([\d.]+) GiB", sentence)
    assert found, sentence
    need, excess = map(float, found.groups())
    assert need > 14.96 + 16  # 8.03e9 parameters of two bytes; 131072 bytes a cached token
    assert excess == pytest.approx(need - 20, abs=0.011)
    fitting = int(re.search(r"workload\.batch=(\d+) fits", sentence)[1])  # type: ignore[index]
    assert 1 <= fitting < 64
    check_fits(LLAMA, Workload(fitting, 1024, 1024), "bf16", device)
    with pytest.raises(UserError):
        check_fits(LLAMA, Workload(fitting + 1, 1024, 1024), "bf16", device)


def test_not_even_one_sequence(free):
    free(2**30)
    with pytest.raises(UserError, match=r"14\.\d\d GiB too much: not even workload\.batch=1 fits"):
        check_fits(LLAMA, Workload(4, 16), "bf16", "cuda")


def test_caches_have_whole_strides(free):
    """129 tokens take the room of 256."""
    work = Workload(1024, 1, CONTEXT_STRIDE)
    need = module.memory_of(LLAMA, work, "bf16").total
    free(need)
    with pytest.raises(UserError, match="GiB too much"):
        check_fits(LLAMA, work, "bf16", "cuda")
    free(module.memory_of(LLAMA, work, "bf16", stride=CONTEXT_STRIDE).total)
    check_fits(LLAMA, work, "bf16", "cuda")


def test_what_was_freed_is_given_back_before_it_is_counted(monkeypatch):
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: order.append("empty"))
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda device: order.append(device) or (2**40, 2**40)
    )
    check_fits(LLAMA, Workload(1, 1), "bf16", "cuda:3")
    assert order == ["empty", "cuda:3"]


def test_a_cpu_is_not_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", None)  # would fail if it were called
    monkeypatch.setattr(torch.cuda, "empty_cache", None)
    check_fits(LLAMA, Workload(10**6, 8192), "bf16", "cpu")


def test_verify_refuses_before_it_builds(free, monkeypatch):
    free(1000)
    monkeypatch.setattr(module, "Engine", None)
    clock = clock_for("cuda")
    costs = table(CHILD, mode="graph", stride=CONTEXT_STRIDE)
    with pytest.raises(UserError, match="GiB too much"):
        verify(CHILD, Workload(1, 5, 5), costs, clock, "fp32")


def test_strides():
    assert stride_of("cpu") == 1
    assert stride_of("cuda") == stride_of("cuda:1") == CONTEXT_STRIDE
    assert Verifier(table(CHILD), CpuClock(), "fp32").stride == 1


# --- machines whose speed drifts ---


class Drifting(Clock):
    """A machine on which all takes ``slow`` times what the table says; nothing runs."""

    threads = 1

    def __init__(self, costs: MeasuredTable, slow: float):
        super().__init__("cpu", "eager", 0)
        self.costs, self.slow, self.stacks = costs, slow, {}

    def prepare(self, subjects, calls):
        """Subjects are what ``engine_call`` below returns: the promise of the stack."""
        return lambda order: {name: self.slow * subjects[name]() for name in order}


@pytest.fixture
def drifting(monkeypatch):
    """Makes verifiers on such a machine, with or without the parent as a reference."""

    def make(slow: float, reference: bool) -> Verifier:
        costs = table(PARENT, CHILD)

        def call(engine, phase, batch, length):
            seconds = forward_latency(costs, engine.stack, phase, batch, length, "fp32").seconds
            return lambda: seconds

        def generation(run, now):
            sizes = Workload(run.batch, run.prompt, run.output)
            return slow * model_latency(costs, run.engine.stack, sizes, "fp32").seconds

        monkeypatch.setattr(module, "engine_call", call)
        monkeypatch.setattr(module, "_seconds", generation)
        parent = Engine(PARENT, "fp32", "cpu") if reference else None
        return Verifier(costs, Drifting(costs, slow), "fp32", 0.01, parent)

    return make


@pytest.mark.parametrize("slow", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_reference_cancels_the_machines_speed(drifting, slow, phase):
    engine = Engine(CHILD, "fp32", "cpu")
    alone = drifting(slow, reference=False).forward(engine, "it", phase, 2, 10)
    assert alone.error == pytest.approx(1 / slow - 1)
    beside = drifting(slow, reference=True).forward(engine, "it", phase, 2, 10)
    assert beside.error == pytest.approx(0) and beside.predicted == alone.predicted


@pytest.mark.parametrize("slow", [0.5, 2.0])
def test_a_reference_cancels_it_in_generations_too(drifting, slow):
    engine, work = Engine(CHILD, "fp32", "cpu"), Workload(2, 5, 6)
    alone, memory = drifting(slow, reference=False).generation(engine, work)
    assert alone.name == "generation" and alone.error == pytest.approx(1 / slow - 1)
    beside, same = drifting(slow, reference=True).generation(engine, work)
    assert beside.error == pytest.approx(0)
    assert memory == same and same.error == 0  # of the child alone


def test_a_reference_does_not_hide_a_slow_child(drifting, monkeypatch):
    """A child that takes 30 % longer than its blocks does so beside its parent as well."""
    verifier, engine = drifting(2.0, reference=True), Engine(CHILD, "fp32", "cpu")
    honest = module.engine_call

    def call(which, *where):
        seconds = honest(which, *where)()
        return lambda: seconds * (1.3 if which is engine else 1.0)

    monkeypatch.setattr(module, "engine_call", call)
    found = verifier.forward(engine, "it", "decode", 1, 10)
    assert found.error == pytest.approx(1 / 1.3 - 1)


def test_real_generations_are_timed_by_the_clocks_hand(monkeypatch):
    """``_seconds`` is what passes on the host's clock while a generation runs."""
    engine = Engine(CHILD, "fp32", "cpu")
    generation = module.Generation(engine, 2, 3, 4)
    hand = iter([10.0, 12.5])
    assert module._seconds(generation, lambda: next(hand)) == 2.5
    assert not generation.ids_BT.any()
