from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from adaptive.core.report import Report, curves_plot
from adaptive.core.report.style import COLOURS, INK, canvas, house_style, to_svg


def drawing():
    return curves_plot({"child": [(0, 2.0), (1, 1.5)], "uniform": [(0, 2.1), (1, 1.7)]})


def page() -> str:
    report = Report("A & B <i>", "on a CPU").text("Hello").numbers({"loss": 1.5}, {"loss": "low"})
    for title in ("One", "Two", "Three"):
        report.section(title).table([{"a": 1, "b": "x"}]).figure(drawing(), f"Figure {title} <")
    return report.code("config.yaml", "a: <b>").html()


def test_the_page_needs_nothing_from_the_network():
    source = page()
    assert not re.search(r"<(link|iframe|img)\b|<script [^>]|@import|\bsrc=|fetch\(", source)
    links = re.findall(r'(?:href|url\()\s*=?"?([^")\s]+)', source)
    assert links and all(link.startswith("#") for link in links)


def test_what_was_written_is_escaped():
    source = page()
    assert "<h1>A &amp; B &lt;i&gt;</h1>" in source and "<pre>a: &lt;b&gt;</pre>" in source
    assert "<i>" not in source


def test_ids_are_unique_and_every_reference_has_its_target():
    source = page()
    ids = re.findall(r'\bid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:href="|url\()#([^")]+)', source)
    assert targets and set(targets) <= set(ids)


def test_contents_appear_with_three_sections():
    assert page().count('<a href="#section-') == 3
    assert "<nav>" not in Report("x").section("a").section("b").html()


def test_the_same_report_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        Report("x").figure(drawing()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_figure_is_well_formed_and_takes_the_colours_and_the_font_of_the_page():
    svg = to_svg(drawing(), "f1")
    ElementTree.fromstring(svg)
    assert not any(colour in svg for colour in COLOURS)
    assert {"var(--ink)", "var(--muted)", "var(--grid)", "var(--s1)", "var(--s2)"} <= set(
        re.findall(r"var\(--\w+\)", svg)
    )
    assert ">child</text>" in svg and "DejaVu" not in svg


def test_no_text_keeps_a_colour_of_its_own_that_dark_pages_would_swallow():
    svg = to_svg(drawing(), "f1")
    texts = re.findall(r"<text [^>]*>", svg)
    assert texts and all("var(--" in text for text in texts)


@house_style
def styled():
    figure, axes = canvas()
    axes.set_title("x")
    return figure


def test_the_style_holds_for_what_is_drawn_and_is_gone_afterwards():
    import matplotlib

    assert styled().axes[0].title.get_color() == INK
    assert matplotlib.rcParams["text.color"] == "black"


@pytest.mark.parametrize("role", COLOURS.values(), ids=lambda role: role[0])
def test_marks_and_text_stand_out_on_light_and_on_dark(role):
    """WCAG 2.1: at least 3:1 for marks (1.4.11) and 4.5:1 for text (1.4.3)."""
    name, light, dark = role
    papers = COLOURS["#010206"]
    if name in ("grid", "paper"):
        return
    needed = 4.5 if name in ("ink", "muted") else 3.0
    assert contrast(light, papers[1]) >= needed
    assert contrast(dark, papers[2]) >= needed


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
