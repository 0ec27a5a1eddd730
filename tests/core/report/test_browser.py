"""Pages as a reader meets them, in headless Chromium."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, chromium, started

from adaptive.core import ChoiceProblem
from adaptive.core.report import (
    Outlines,
    Report,
    allocation_plot,
    choice_text,
    compare_plot,
    curves_plot,
    frontier_plot,
    ladder_plot,
    picture_plot,
    predicted_measured_plot,
)
from adaptive.core.run import TaskConfig

pytestmark = pytest.mark.slow

PROBLEM = ChoiceProblem(
    loss=[[0.0, 0.1, 0.9], [0.0, math.inf, 0.2]],
    cost={"latency": [[2.0, 1.0, 0.0], [2.0, 1.0, 1.0]]},
    groups=["layer 0", "layer 1"],
    options=["full", "half", "none"],
)
QUADS = np.array([[[10, 10], [60, 10], [60, 30], [10, 30]]], float)
TIP = "document.querySelector('.tip')"


def page() -> Report:
    """A page with a part of every kind, and what does not fit a phone."""
    report = Report("A page", "/a/very/long/path" * 12)
    report.numbers({"speed-up": "1.53x", "loss": 4.067, "gap": 0.0}, {"loss": "nats a token"})
    report.section("Frontier").figure(
        frontier_plot(
            [(2.0, 0.1), (1.0, 0.3)],
            x="latency (ms)",
            y="loss",
            others={"uniform": [(1.5, 0.4)]},
            marked={"child": (1.0, 0.3)},
            notes={"child": [choice_text(PROBLEM, [1, 2])]},
        )
    )
    report.table([{f"column number {n}": "some words" for n in range(12)}], "Very wide")
    report.section("Architecture").figure(allocation_plot(PROBLEM, [1, 2]), "parent and child")
    report.section("More").figure(ladder_plot({"half": [0.1, 0.2], "none": [1.0, 2.0]}))
    report.figure(curves_plot({"child": [(n, 1 / (n + 1)) for n in range(300)]}, log=True))
    rows = [{"name": "child", "predicted": 2.0, "measured": 2.2}]
    report.figure(predicted_measured_plot(rows, unit="ms"))
    report.figure(compare_plot({"child": 1.4, "random": 1.6}, x="loss"))
    picture_HW3 = np.full((90, 160, 3), 90, np.uint8)
    words = Outlines(QUADS, "#ff8c1a", texts=["word 1"])
    report.figure(picture_plot(picture_HW3, [words]), "words", legend={"found": "#ff8c1a"})
    return report.provenance(TaskConfig("wide", "x" * 300), "nowhere")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started(chromium()) as found:
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    page().save(file)
    return file


def middle(browser: Browser, text: str) -> tuple[float, float]:
    """Scrolls to the place whose text begins so, and says where in the window it is then."""
    browser.evaluate(f"""window.place = [...document.querySelectorAll('.spots > *')].find(
        (one) => one.getAttribute('aria-label').startsWith({text!r}) && one.getClientRects().length
        && one.getBoundingClientRect().width > 0);
        place.scrollIntoView({{block: 'center'}});
        new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))""")
    x, y = browser.evaluate("""(() => { const at = place.getBoundingClientRect();
        return [at.left + at.width / 2, at.top + at.height / 2]; })()""")
    return x, y


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_a_page_is_drawn_without_the_network_and_fits(browser, path, width, dark):
    browser.open(path, width=width, dark=dark)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    drawn = browser.evaluate("""[...document.querySelectorAll('figure')].map((figure) =>
        [...figure.querySelectorAll('svg')].filter((svg) => svg.getBoundingClientRect().height > 80)
        .length)""")
    assert drawn == [1] * 7  # each figure once: the roomy drawing, or the phone's
    beyond = browser.evaluate("""[...document.querySelectorAll('main *')].filter((one) =>
        one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.wide, pre')).length""")
    assert beyond == 0


def test_words_in_figures_can_be_read_on_a_phone(browser, path):
    browser.open(path, width=390)
    heights = browser.evaluate("""[...document.querySelectorAll('.phone svg text')]
        .filter((one) => !one.closest('[transform*="rotate(-90"]'))
        .map((one) => one.getBoundingClientRect().height)""")
    assert heights and min(heights) > 8


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("child", "child\nlatency (ms): 1.000\nloss: 0.3000\nunchanged: 0 of 2\nhalf: layer 0"),
        ("uniform", "uniform\nlatency (ms): 1.500\nloss: 0.4000"),
        ("layer 0: half (choice)", "layer 0: half (choice)\nloss 0.1000\nlatency 1 s"),
        ("layer 1, latency", "layer 1, latency\nreference 2 s\nchoice 1 s"),
        ("none, layer 1", "none, layer 1\n2.000"),
        ("step 0", "step 0\nchild: 1.000"),
        ("child\npredicted", "child\npredicted 2.000 ms\nmeasured 2.200 ms\nerror -9.1%"),
        ("random", "random\nloss: 1.6"),
        ("word 1", "word 1"),
    ],
)
@pytest.mark.parametrize("width", [1200, 390])
def test_pointing_at_a_place_tells_what_it_is(browser, path, place, told, width):
    browser.open(path, width=width)
    assert browser.evaluate(f"{TIP}.hidden")
    browser.point_at(*middle(browser, place))
    assert not browser.evaluate(f"{TIP}.hidden")
    assert browser.evaluate(f"{TIP}.textContent").startswith(told)
    left, right, top = browser.evaluate(
        f"(() => {{ const at = {TIP}.getBoundingClientRect();"
        "return [at.left, at.right, at.top]; })()"
    )
    assert left >= 0 and right <= width and top >= 0
    browser.point_at(2, 2)
    assert browser.evaluate(f"{TIP}.hidden")


def test_places_are_where_their_marks_are(browser, path):
    browser.open(path)
    apart = browser.evaluate("""(() => {
        const svg = document.querySelector('.roomy svg');
        const centre = (one) => { const at = one.getBoundingClientRect();
            return [at.left + at.width / 2, at.top + at.height / 2]; };
        const marks = [...svg.querySelectorAll('use')].map(centre);
        return [...svg.querySelectorAll('.spots circle')].map(centre).map(([x, y]) =>
            Math.min(...marks.map(([u, v]) => Math.hypot(x - u, y - v)))); })()""")
    assert len(apart) == 4 and max(apart) < 1.5


def test_a_keyboard_goes_from_place_to_place(browser, path):
    browser.open(path)
    browser.evaluate("document.querySelector('.roomy .spots > [tabindex=\"0\"]').focus()")
    first = browser.evaluate(f"{TIP}.textContent")
    browser.press("ArrowRight")
    second = browser.evaluate(f"{TIP}.textContent")
    assert first.startswith("frontier") and second.startswith("frontier") and first != second
    browser.press("Escape")
    assert browser.evaluate(f"{TIP}.hidden")


def test_the_dark_page_is_dark_and_its_figures_too(browser, path):
    look = """[getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector('svg text')).fill]"""
    browser.open(path)
    light = browser.evaluate(look)
    browser.colours(dark=True)
    dark = browser.evaluate(look)
    assert light[0] == computed("#ffffff") and dark[0] == computed("#16181b")
    assert light[1] == computed("#646b73") and dark[1] == computed("#9aa1a9")


def computed(colour: str) -> str:
    """A colour as a browser computes it."""
    return "rgb({}, {}, {})".format(*bytes.fromhex(colour[1:]))


def test_a_page_is_printed_in_its_light_colours(browser, path):
    browser.open(path, dark=True)
    pdf = browser.printed()
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Type /Page\n") >= 2
    browser.send("Emulation.setEmulatedMedia", media="print")
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.send("Emulation.setEmulatedMedia", media="")
    assert colour == computed("#ffffff")
