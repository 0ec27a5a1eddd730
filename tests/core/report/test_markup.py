from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.report.markup import format_column, format_number, inline, paragraphs, table


class Text(HTMLParser):
    """Collects what a browser would show, and the tags that it would obey."""

    def __init__(self, source: str):
        super().__init__()
        self.words = ""
        self.tags: list[str] = []
        self.feed(source)
        self.close()

    def handle_data(self, data):
        self.words += data

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


@given(st.text(st.characters(exclude_characters="`*[]()\r\x00", exclude_categories=["Cs"])))
def test_text_is_shown_as_written_and_never_obeyed(text):
    shown = Text(inline(text))
    assert shown.words == html.unescape(html.escape(text)) == text
    assert shown.tags == []


@pytest.mark.parametrize(
    ("text", "markup"),
    [
        ("a `b<c` d", "a <code>b&lt;c</code> d"),
        ("**1.5x** it", "<strong>1.5x</strong> it"),
        ("[x](https://a.org/b?c=1&d=2)", '<a href="https://a.org/b?c=1&amp;d=2">x</a>'),
        ("[x](javascript:alert)", "[x](javascript:alert)"),
        ('[x](https://a"onclick=1)', '<a href="https://a&quot;onclick=1">x</a>'),
    ],
)
def test_markdown(text, markup):
    assert inline(text) == markup


def test_paragraphs_and_lists():
    assert paragraphs("one\nline\n\n- a\n- b") == "<p>one line</p>\n<ul><li>a</li><li>b</li></ul>"


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1.304, 1.3812, None], ["1.304", "1.381", "–"]),
        ([31.02, 9.4], ["31.02", "9.40"]),
        ([0.5, 123.456], ["0.50", "123.46"]),
        ([1e-9, 1.0], ["1.000e-09", "1.000e+00"]),
        ([0.0, 0.25], ["0.0000", "0.2500"]),
        ([3_000_000, 12], ["3,000,000", "12"]),
        ([float("inf"), 2.0], ["inf", "2.000"]),
        (["x", True], ["x", "True"]),
    ],
)
def test_a_column_has_one_number_of_decimals(values, cells):
    assert format_column(values) == cells


@given(st.lists(st.floats(1e-3, 10, exclude_max=True), min_size=1))
def test_decimal_points_of_a_column_are_below_each_other(values):
    assert len({len(cell.partition(".")[2]) for cell in format_column(values)}) == 1


def test_a_number_on_its_own():
    assert [format_number(v) for v in (1.38123, 1912345, "1.5x")] == ["1.381", "1,912,345", "1.5x"]


def test_a_table_has_every_key_and_marks_what_is_missing():
    source = table([{"model": "a<b", "loss": 1.5}, {"model": "c", "KL": 2.5}], "Some `x`")
    shown = Text(source)
    assert shown.tags.count("tr") == 3 and shown.tags.count("th") == 3
    assert "a<b" in shown.words and shown.words.count("–") == 2
    assert '<th scope="col" class="n">loss</th>' in source
    assert '<th scope="col">model</th>' in source


@pytest.mark.parametrize(
    ("values", "right"),
    [
        (["1.53x", "0.9x"], True),
        (["+2.2 %", "-0.1 %", ""], True),
        (["18.06 MiB", "-"], True),
        (["3,160,896", None], True),
        (["1.2e-09"], True),
        (["855.7M params", "0 params"], True),
        (["1280 x 720"], False),
        (["kv2+ffn512"], False),
        (["7 of 16"], False),
        (["2026-11-23"], False),
        (["12, 13"], False),
        (["no", "3"], False),
    ],
)
def test_numbers_with_units_stand_to_the_right(values, right):
    assert ('<td class="n">' in table([{"a": value} for value in values])) == right


def test_what_a_table_is_about_does_not_scroll_with_it():
    source = table([{"a": 1}], "About <it>")
    assert source.startswith('<p class="caption">About &lt;it&gt;</p><div class="wide table"')
