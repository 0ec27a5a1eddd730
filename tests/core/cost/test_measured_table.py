"""Measured tables: round trips, look-ups, refusals."""

from __future__ import annotations

import h100_like
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


FITTED = h100_like.table(noise=0.01)
EXTENDED = h100_like.table(noise=0.01, extrapolate=True)
FFNS = {row.key.block for row in FITTED if row.key.block.startswith("ffn(h=4096")}
WIDTHS = sorted(int(key.partition("i=")[2].rstrip(")")) for key in FFNS)


def corners(values, x):
    """The measured values next to ``x``."""
    return {max(v for v in values if v <= x), min(v for v in values if v >= x)}


def test_measured_points_are_returned_as_measured():
    for row in FITTED:
        key = row.key
        assert FITTED.seconds(*key[:-1]) == (row.seconds, "measured")


@given(st.integers(WIDTHS[0], WIDTHS[-1]), st.integers(1, 16384))
def test_between_points_times_lie_between_those_of_the_corners(width, tokens):
    """Twice as many tokens take longer, up to noise, so what lies between cannot be outside."""
    found = FITTED.seconds(FFN(4096, width), "prefill", tokens, 1, "bf16")
    around = [
        FITTED.seconds(FFN(4096, w), "prefill", n, 1, "bf16").seconds
        for w in corners(WIDTHS, width)
        for n in corners([2**k for k in range(15)], tokens)
    ]
    assert 0 < min(around) <= found.seconds <= max(around)
    assert found.how == ("measured" if len(around) == 1 else "interpolated")


@given(st.integers(WIDTHS[0], WIDTHS[-1]), st.integers(1, 16384))
def test_between_points_the_fitted_hardware_shows(width, tokens):
    block = FFN(4096, width)
    truth = h100_like.seconds(block, "prefill", tokens, 1)
    found = FITTED.seconds(block, "prefill", tokens, 1, "bf16").seconds
    # 1 % noise at up to four corners; the steps of tiles alone are up to 2x here.
    assert found == pytest.approx(truth, rel=0.05)


@given(st.integers(1, 2), st.integers(1, 40_000))
def test_with_a_fit_the_outside_is_refused_or_extrapolated_and_marked(over, beyond):
    block, tokens = FFN(4096, 14336), 16384 + beyond
    outside = [(block, "prefill", tokens, 1), (FFN(4096, 14336 + beyond), "prefill", over, 1)]
    for subject in outside:
        with pytest.raises(UserError, match="set extrapolate=true"):
            FITTED.seconds(*subject, "bf16")
        found = EXTENDED.seconds(*subject, "bf16")
        assert found.how == "extrapolated"
        assert found.seconds == pytest.approx(h100_like.seconds(*subject), rel=0.05)


def test_a_hole_that_nothing_surrounds_is_outside():
    """The largest caches do not fit: beyond their last context nothing is known."""
    block = Attention(8192, 64, 8, 128)
    assert RowKey.of(block, "decode", 256, 32767, "bf16", "graph") not in FITTED
    with pytest.raises(
        UserError, match="batch 256, length 32767: measured are kv_heads 1, 2"
    ) as no:
        FITTED.seconds(block, "decode", 256, 32767, "bf16")
    assert "16383" not in str(no.value) and "but not all of their combinations" in str(no.value)
    with pytest.raises(UserError, match="16384; profile it"):  # where there are no holes
        FITTED.seconds(FFN(4096, 14336), "prefill", 20_000, 1, "bf16")
    found = EXTENDED.seconds(block, "decode", 256, 32767, "bf16")
    assert found.how == "extrapolated"
    assert found.seconds == pytest.approx(h100_like.seconds(block, "decode", 256, 32767), rel=0.05)


def test_a_shape_that_was_never_measured_is_refused_even_with_extrapolation():
    with pytest.raises(UserError, match="no sizes of it"):
        EXTENDED.seconds(FFN(5120, 14336), "prefill", 64, 1, "bf16")


@pytest.mark.parametrize("stride", [1, 64, 500])
def test_with_a_fit_the_workload_is_the_sum_of_its_steps(stride):
    table = h100_like.table(noise=0.01, context_stride=stride)
    block, workload = Attention(4096, 32, 4, 128), Workload(2, 700, 600)
    lengths = [-(-(c + 1) // stride) * stride - 1 for c in range(700, 1299)]
    assert lengths[0] >= 700 and max(lengths) >= 1298
    steps = [table.seconds(block, "decode", 2, n, "bf16").seconds for n in lengths]
    prefill = table.seconds(block, "prefill", 2, 700, "bf16").seconds
    found = table.latency(block, workload, "bf16")
    assert found == (pytest.approx(prefill + sum(steps)), "interpolated")


def test_a_stride_that_hits_measured_contexts_needs_no_interpolation():
    table = h100_like.table(context_stride=512)
    found = table.latency(Attention(4096, 32, 4, 128), Workload(4, 512, 1024), "bf16")
    assert found.how == "interpolated"  # contexts 512..1023 run 1024 slots, the last 1536
    found = table.latency(Attention(4096, 32, 4, 128), Workload(4, 512, 513), "bf16")
    sizes = ("prefill", 4, 512), ("decode", 4, 1023)
    times = [h100_like.seconds(Attention(4096, 32, 4, 128), *size) for size in sizes]
    assert found == (pytest.approx(times[0] + 512 * times[1]), "measured")


def test_sizes_are_corrected_in_their_logarithm_and_shapes_are_not():
    assert {series.names: series.logs for series in FITTED.series().values()} == {
        ("kv_heads", "batch", "length"): (1, 2),
        ("intermediate", "batch"): (1,),
    }


def test_a_stride_below_one_is_refused():
    with pytest.raises(UserError, match="context_stride=0 must be at least 1"):
        MeasuredTable(ORIGIN, context_stride=0)


def test_latencies_follow_options_and_rows(table):
    workload = Workload(1, 100, 101)
    before = table.latency(ATTENTION, workload, "fp32").seconds
    assert table.latency(ATTENTION, workload, "fp32").seconds == before
    table.context_stride = 200
    # Contexts 100..198 run 200 slots and 199 just as many.
    stepped = table.latency(ATTENTION, workload, "fp32").seconds
    at_199 = table.seconds(ATTENTION, "decode", 1, 199, "fp32").seconds
    assert stepped == pytest.approx(10 + 100 * at_199) and stepped > before
    table.add(row(ATTENTION, "prefill", 1, 100, 20.0))
    assert table.latency(ATTENTION, workload, "fp32").seconds == pytest.approx(stepped + 10)


def test_fits_see_waves_where_the_notes_name_the_multiprocessors():
    block = FFN(4096, 14336)

    def times(notes):
        return (
            MeasuredTable(
                ORIGIN,
                [
                    Row(RowKey.of(FFN(4096, w), "prefill", n, 1, "bf16", "eager"), wave(w, n))
                    for w in (2048, 4096, 14336)
                    for n in (128, 256, 512, 1024, 2048)
                ],
                notes=notes,
            )
            .seconds(block, "prefill", 600, 1, "bf16")
            .seconds
        )

    def wave(width, tokens):
        tiles = -(-tokens // 128) * np.array([width // 64, 32])
        return float(1e-5 + (-(-tiles // 132) * np.array([4096, width])).sum() * 1e-8)

    assert times({"multiprocessors": 132}) == pytest.approx(wave(14336, 600))
    assert times({}) != pytest.approx(wave(14336, 600), rel=0.01)


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
    "another format": (lambda t: t.replace('"version": 2', '"version": 9'), "of format 9"),
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
