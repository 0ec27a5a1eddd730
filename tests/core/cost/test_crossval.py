"""Cross-validation of measured tables: known errors, nothing learnt from what is left out."""

from __future__ import annotations

import functools
import itertools
import math

import h100_like
import pytest

from adaptive.core.cost import FFN, Attention, CrossValidation, MeasuredTable, Origin, Row, RowKey
from adaptive.core.cost import crossval as module

ORIGIN = Origin("test", "2.15.0", 0)
TOKENS, WIDTHS = (1, 2, 8, 64, 512), (512, 1024, 4096, 8192)


def ffn_table(seconds, widths=WIDTHS) -> MeasuredTable:
    rows = [
        Row(RowKey.of(FFN(1024, width), "prefill", n, 1, "bf16", "eager"), seconds(width, n))
        for width, n in itertools.product(widths, TOKENS)
    ]
    return MeasuredTable(ORIGIN, rows)


def right(width: int, tokens: int) -> float:
    block = FFN(1024, width)
    return 1e-5 + block.prefill_bytes(tokens, 1, "bf16") / 1e12


@functools.cache
def noisy() -> CrossValidation:
    return h100_like.table(noise=0.01).cross_validate()


def test_the_shipped_layout_interpolates_within_three_per_cent():
    found = noisy()
    assert set(found.by_axis) == {
        name + suffix
        for name in ("intermediate", "kv_heads", "batch", "length")
        for suffix in ("", ", whole")
    }
    assert set(found.by_kind) == {"attention decode", "attention prefill", "ffn prefill"}
    assert found.mean < 0.015  # 1 % noise at the point and its neighbours
    assert max((*found.by_axis.values(), *found.by_kind.values())) < 0.03


def test_without_noise_the_fit_leaves_no_error_where_plain_interpolation_does(monkeypatch):
    table = h100_like.table()
    assert table.cross_validate().mean < 1e-6
    monkeypatch.setattr(module, "fit", lambda *_: None)
    assert table.cross_validate().mean > 0.01


def test_the_points_left_out_are_the_interior_ones():
    found = ffn_table(right).cross_validate()
    for whole in (False, True):
        held = [h for h in found.held if h.whole == whole]
        by_width = {(h.key.block, h.key.batch) for h in held if h.axis == "intermediate"}
        by_tokens = {(h.key.block, h.key.batch) for h in held if h.axis == "batch"}
        assert by_width == {(FFN(1024, w).key(), n) for w in WIDTHS[1:-1] for n in TOKENS}
        assert by_tokens == {(FFN(1024, w).key(), n) for w in WIDTHS for n in TOKENS[1:-1]}
        assert len(held) == len(by_width) + len(by_tokens)


def test_nothing_is_learnt_from_the_point_itself():
    """A false time moves its own error and its neighbours', not what is predicted for it."""
    at = RowKey.of(FFN(1024, 1024), "prefill", 8, 1, "bf16", "eager")
    predicted = []
    for factor in (1, 3):
        table = ffn_table(right)
        table.add(Row(at, right(1024, 8) * factor))
        held = [h for h in table.cross_validate().held if h.key == at]
        assert [h.measured for h in held] == [right(1024, 8) * factor] * 4
        # Left out alone, only the coefficients are fitted again: the false time may choose terms.
        predicted.append([h.predicted for h in held if h.whole])
    assert predicted[0] == pytest.approx([right(1024, 8)] * 2)
    assert predicted[1] == pytest.approx(predicted[0])


def test_a_whole_width_is_left_out_at_every_token_count():
    """All times of one width are false: its own rows must not bend the fit that predicts them."""
    table = ffn_table(lambda w, n: right(w, n) * (5 if w == 1024 else 1))
    held = [h for h in table.cross_validate().held if h.key.block == FFN(1024, 1024).key()]
    by_width = [h for h in held if h.axis == "intermediate"]
    whole = [h.error for h in by_width if h.whole]
    assert whole == pytest.approx([1 / 5 - 1] * len(TOKENS))
    assert max(abs(h.predicted / h.measured - 0.2) for h in by_width if not h.whole) > 1e-3


def test_without_a_fit_the_error_is_that_of_straight_lines():
    rows = [Row(RowKey("sampling", "decode", 1, n, "fp32", "eager"), n * n) for n in (1, 2, 3)]
    found = MeasuredTable(ORIGIN, rows).cross_validate()
    assert [(h.axis, h.whole, h.predicted) for h in found.held] == [
        ("length", False, 5.0),
        ("length", True, 5.0),
    ]
    assert found.mean == found.by_axis["length"] == found.by_kind["sampling decode"] == 0.25
    assert found.worst is not None and found.worst.error == 0.25


def test_holes_leave_shorter_lines():
    attention = Attention(64, 8, 2, 16)
    cells = {(1, 10): 1.0, (1, 20): 2.0, (1, 40): 4.0, (2, 10): 2.0, (4, 10): 4.0, (4, 40): 9.0}
    rows = [
        Row(RowKey.of(attention, "decode", *size, "fp32", "eager"), seconds)
        for size, seconds in cells.items()
    ]
    found = MeasuredTable(ORIGIN, rows).cross_validate()
    held = {(h.axis, h.key.batch, h.key.length) for h in found.held}
    assert held == {("length", 1, 20), ("batch", 2, 10)}


def test_the_text_names_the_errors_and_the_worst_point():
    text = str(noisy())
    found = noisy()
    assert f"intermediate, whole  {found.by_axis['intermediate, whole']:6.2%}" in text
    assert found.worst is not None and found.worst.key.block in text
    assert abs(found.worst.error) == max(abs(h.error) for h in found.held if not h.whole)


def test_a_table_without_interior_points_says_so():
    found = ffn_table(right, widths=(512,)).cross_validate()
    assert {h.axis for h in found.held} == {"batch"}
    empty = MeasuredTable(ORIGIN).cross_validate()
    assert math.isnan(empty.mean) and empty.worst is None and empty.by_axis == {}
    assert "no point has measured neighbours" in str(empty)
