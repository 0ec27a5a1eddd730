"""The page of a profile: curves that tell sizes apart, all rows to be looked up."""

from __future__ import annotations

import pytest

from adaptive.core.cost import FFN, Attention, Linear, MeasuredTable, Origin, Row, RowKey
from adaptive.core.profiling.report import labels, pictures, profile_page


def rows(block, phase, sizes) -> list[Row]:
    return [
        Row(RowKey.of(block, phase, batch, length, "fp32", "eager"), 1e-4 * batch * length)
        for batch, length in sizes
    ]


TOKENS = [(1, 1), (2, 1), (8, 1)]
LENGTHS = [(1, 16), (1, 64), (4, 16), (4, 64)]


@pytest.mark.parametrize(
    ("measured", "captions"),
    [
        (
            [(FFN(16, width), "prefill", TOKENS) for width in (16, 32)],
            ["ffn, prefill: h=16"],
        ),
        (
            [(Attention(16, 4, kv, 4), "decode", LENGTHS) for kv in (1, 2)],
            ["attention, decode, batch 4: h=16, heads=4, d=4"],
        ),
        (
            [(Linear(16, 16), "prefill", TOKENS), (FFN(16, 32), "prefill", TOKENS)],
            ["Blocks of one size, prefill: linear, ffn"],
        ),
        ([(Linear(16, 16), "prefill", TOKENS[:1])], []),  # a point is no curve
    ],
)
def test_what_is_drawn(measured, captions):
    drawn = list(pictures(row for each in measured for row in rows(*each)))
    assert [caption for _, caption in drawn] == captions


def test_curves_are_named_by_what_tells_them_apart():
    found = [Attention(16, 4, kv, 4).key() for kv in (4, 1)]
    names = dict(zip(found, ("kv=4", "kv=1"), strict=True))
    assert labels(found) == (": h=16, heads=4, d=4", names)
    assert labels(["noop"]) == ("", {"noop": "noop"})


def test_no_more_curves_than_colours():
    sizes = [rows(FFN(16, width), "prefill", TOKENS) for width in range(16, 26)]
    [(figure, _)] = pictures(row for each in sizes for row in each)
    names = [line.get_label() for line in figure.axes[0].get_lines()]
    assert len(names) == 6 and names[0] == "i=16" and names[-1] == "i=25"


def test_every_row_is_there_and_this_models_are_drawn():
    own, other = FFN(16, 32), FFN(64, 96)
    measured = [*rows(own, "prefill", TOKENS), *rows(other, "prefill", TOKENS)]
    table = MeasuredTable(Origin("cpu", "2.15.0", 1), measured)
    page = profile_page("Profile", table, [own], "fp32", 0.031).html()
    assert "<summary>All 6 rows</summary>" in page and "800 us" in page and "3.1 %" in page
    assert other.key() in page
    assert page.count("<figure>") == 1 and "Blocks of one size, prefill: ffn" in page
    compiled = MeasuredTable(table.origin, measured, mode="graph")
    assert "<figure>" not in profile_page("Profile", compiled, [own], "fp32", 0.031).html()
