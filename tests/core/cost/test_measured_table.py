"""Measured tables: round trips, look-ups, refusals."""

from __future__ import annotations

import pytest

from adaptive.core.cost import FFN, Attention, MeasuredTable, NoOp, Origin, Row, RowKey, model_cost
from adaptive.core.cost.stack import Stack
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

ORIGIN = Origin("test-cpu", "2.15.0", 2)
NARROW, WIDE = FFN(64, 128), FFN(64, 256)
ATTENTION = Attention(64, 8, 2, 16)


def row(block, phase, batch, length, seconds, dtype="fp32", mode="eager"):
    return Row(RowKey.of(block, phase, batch, length, dtype, mode), seconds, 0.01, 20)


@pytest.fixture
def table() -> MeasuredTable:
    rows = [
        row(ATTENTION, "prefill", 1, 100, 10.0),
        row(ATTENTION, "decode", 1, 100, 1.0),
        row(ATTENTION, "decode", 1, 200, 2.0),
        row(ATTENTION, "decode", 1, 400, 6.0),
        row(NARROW, "decode", 1, 100, 3.0),
        row(WIDE, "decode", 1, 100, 5.0),
        row(NARROW, "decode", 1, 100, 30.0, dtype="bf16"),
        row(NARROW, "decode", 1, 100, 0.5, mode="compiled"),
        row("sampling", "decode", 1, 100, 0.25),
    ]
    return MeasuredTable(ORIGIN, rows, notes={"date": "2026-11-30"})


def test_round_trip(table, tmp_path):
    path = tmp_path / "new" / "costs.csv"
    table.save(path)
    again = MeasuredTable.load(path, ORIGIN)
    assert list(again) == list(table)
    assert (again.origin, again.notes, again.path) == (ORIGIN, {"date": "2026-11-30"}, path)
    first = path.read_text()
    again.save()
    assert path.read_text() == first
    assert first.startswith('#{"format": "adaptive-costs"')


def test_open_starts_or_continues(table, tmp_path):
    path = tmp_path / "costs.csv"
    fresh = MeasuredTable.open(path, ORIGIN)
    assert len(fresh) == 0 and not path.exists()
    table.save(path)
    assert len(MeasuredTable.open(path, ORIGIN)) == len(table)


def test_look_up_and_interpolation(table):
    assert table.seconds(ATTENTION, "decode", 1, 200, "fp32") == (2.0, "measured")
    assert table.seconds(ATTENTION, "decode", 1, 300, "fp32") == (4.0, "interpolated")
    # An FFN's decode step does not depend on the context; its width is an axis.
    assert table.seconds(NARROW, "decode", 1, 7777, "fp32") == (3.0, "measured")
    assert table.seconds(FFN(64, 192), "decode", 1, 1, "fp32") == (4.0, "interpolated")
    assert table.seconds("sampling", "decode", 1, 100, "fp32") == (0.25, "measured")
    assert table.seconds(NoOp(), "decode", 9, 9, "fp32") == (0.0, "measured")
    assert table.seconds(NARROW, "decode", 1, 100, "bf16").seconds == 30.0
    table.mode = "compiled"
    assert table.seconds(NARROW, "decode", 1, 100, "fp32").seconds == 0.5


@pytest.mark.parametrize(
    ("block", "phase", "batch", "length", "dtype"),
    [
        (ATTENTION, "decode", 1, 401, "fp32"),
        (ATTENTION, "decode", 2, 200, "fp32"),
        (ATTENTION, "decode", 1, 200, "fp16"),
        (Attention(64, 8, 4, 16), "decode", 1, 200, "fp32"),
        (FFN(64, 512), "decode", 1, 100, "fp32"),
        (FFN(96, 128), "decode", 1, 100, "fp32"),
        (NARROW, "prefill", 1, 100, "fp32"),
        ("sampling", "decode", 1, 101, "fp32"),
    ],
)
def test_outside_the_measured_range_is_refused(table, block, phase, batch, length, dtype):
    with pytest.raises(UserError, match="profile it, or set extrapolate=true"):
        table.seconds(block, phase, batch, length, dtype)


def test_extrapolation_is_marked(table):
    table.extrapolate = True
    assert table.seconds(ATTENTION, "decode", 1, 500, "fp32") == (8.0, "extrapolated")
    assert table.latency(ATTENTION, Workload(1, 100, 400), "fp32").how == "extrapolated"


def test_the_workload_is_the_sum_of_its_steps(table):
    workload = Workload(1, 100, 251)  # contexts 100..349, through the kink at 200
    steps = sum(table.seconds(ATTENTION, "decode", 1, n, "fp32").seconds for n in range(100, 350))
    assert table.latency(ATTENTION, workload, "fp32") == (
        pytest.approx(10.0 + steps),
        "interpolated",
    )
    stack = Stack((ATTENTION, NoOp(), ATTENTION))
    total = model_cost(stack, workload, "fp32", table)["latency"]
    assert total == pytest.approx(2 * (10.0 + steps))


def test_new_rows_are_seen_and_replace_old_ones(table):
    assert table.seconds(NARROW, "decode", 1, 1, "fp32").seconds == 3.0
    table.add(row(NARROW, "decode", 1, 100, 7.0))
    assert table.seconds(NARROW, "decode", 1, 1, "fp32").seconds == 7.0


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Origin("h100", "2.15.0", 2), "device='test-cpu'"),
        (Origin("test-cpu", "2.16.0", 2), "torch='2.15.0'"),
        (Origin("test-cpu", "2.15.0", 8), "threads=2"),
    ],
)
def test_another_origin_is_refused_by_name_unless_forced(table, tmp_path, other, named):
    path = tmp_path / "costs.csv"
    table.save(path)
    with pytest.raises(UserError, match=named):
        MeasuredTable.load(path, other)
    assert len(MeasuredTable.load(path, other, force=True)) == len(table)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_times_are_refused(seconds):
    with pytest.raises(UserError, match="is no measurement"):
        row(NARROW, "decode", 1, 1, seconds)


DAMAGES = {
    "lost last line": (lambda t: t.rsplit("\n", 2)[0] + "\n", "truncated"),
    "cut within a line": (lambda t: t[:-5], "truncated"),
    "only a header": (lambda t: t.split("\n")[0], "columns"),
    "empty": (lambda t: "", "not a cost table"),
    "no header": (lambda t: t.split("\n", 1)[1], "not a cost table"),
    "another format": (lambda t: t.replace('"version": 2', '"version": 9'), "not a cost table"),
    "negative time": (lambda t: t.replace(",0.25,", ",-0.25,"), "line 11.*no measurement"),
    "text for a number": (lambda t: t.replace(",0.25,", ",fast,"), "line 11.*cannot read"),
    "unknown phase": (lambda t: t.replace("sampling,decode", "sampling,d"), "unknown phase"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(table, tmp_path, damage):
    harm, message = DAMAGES[damage]
    path = tmp_path / "costs.csv"
    table.save(path)
    path.write_text(harm(path.read_text()))
    with pytest.raises(UserError, match=message):
        MeasuredTable.load(path)


def test_a_missing_file_and_a_missing_path(table, tmp_path):
    with pytest.raises(UserError, match="cannot read the cost table"):
        MeasuredTable.load(tmp_path / "none.csv")
    with pytest.raises(UserError, match="give save"):
        table.save()
