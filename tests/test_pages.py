"""Pages of whole runs in headless Chromium: of those that need neither data nor a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, chromium, started

import adaptive

pytestmark = pytest.mark.slow

# Recipe, what makes it quick, and headings that its page has.
RUNS = {
    "puzzle_tiny": (
        ["data.tokens=4096", "data.validation_tokens=2048", "data.length=64"]
        + ["space.ffn_fractions=[0.5]", "distill.tokens=1024", "score.tokens=512"]
        + ["cost.seconds=3", "gkd.tokens=2048", "verify.seconds=2", "baselines=[uniform]"],
        ["Frontier", "Chosen architecture", "Predicted and measured", "Global distillation"],
    ),
    "puzzle_70b": ([], ["Options of a layer"]),
    "textscale_render": (["images=4", "output=OUT"], ["Images", "Heights"]),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started(chromium()) as found:
        yield found


@pytest.mark.parametrize("name", RUNS)
def test_the_page_of_a_run(browser, name, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    settings, headings = RUNS[name]
    given = [setting.replace("OUT", str(tmp_path / "out")) for setting in settings]
    page = adaptive.load(name, *given).run(tmp_path / "run").report
    assert page is not None
    for width, dark in ((1200, False), (1200, True), (390, False)):
        browser.open(page, width=width, dark=dark)
        assert browser.errors == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
        assert browser.evaluate("document.documentElement.scrollWidth") == width
    found = browser.evaluate("[...document.querySelectorAll('h2')].map((one) => one.textContent)")
    assert set(headings) <= set(found) and found[-1] == "How this was made"
    if name == "puzzle_tiny":
        told = browser.evaluate(
            "[...document.querySelectorAll('figure')].map((figure) => [...figure.querySelectorAll("
            "'.spots > *')].map((one) => one.getAttribute('aria-label')))"
        )
        frontier, architecture = told[:2]
        assert sum("unchanged: " in text for text in frontier) == len(frontier) > 6
        assert sum("(parent" in text for text in architecture) == 8
        assert sum("child)" in text for text in architecture) == 8
