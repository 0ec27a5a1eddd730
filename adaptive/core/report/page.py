"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from adaptive.core.report import markup
from adaptive.core.report.style import stylesheet, to_svg
from adaptive.core.run.atomic import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report:
    """A page that grows from top to bottom; every method returns the report, to be chained.

    >>> Report("Puzzle", "llama-tiny, 1.5x").section("Results").table(rows, "Losses").save(path)

    All text is escaped. Text may hold `code`, **bold**, [links](https://...), and lists.

    Args:
        title: heading of the page.
        subtitle: what was run, on what.
    """

    def __init__(self, title: str, subtitle: str = ""):
        self.title = title
        self.subtitle = subtitle
        self._parts: list[str] = []
        self._sections: list[str] = []
        self._figures = 0

    def section(self, title: str) -> Report:
        """Begins a section, which the contents at the top point to."""
        self._sections.append(title)
        anchor = f"section-{len(self._sections)}"
        return self._add(f'<h2 id="{anchor}">{markup.inline(title)}</h2>')

    def text(self, text: str) -> Report:
        """Adds paragraphs."""
        return self._add(markup.paragraphs(text))

    def numbers(self, values: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> Report:
        """Adds a row of large numbers.

        Args:
            values: label to number, or to text with its unit.
            notes: label to a few words below the number.
        """
        notes = notes or {}
        tiles = "".join(
            f"<div><dt>{markup.inline(label)}</dt><dd>{html.escape(markup.format_number(value))}"
            f"<small>{markup.inline(notes.get(label, ''))}</small></dd></div>"
            for label, value in values.items()
        )
        return self._add(f'<dl class="numbers">{tiles}</dl>')

    def table(self, rows: Sequence[Mapping[str, Any]], caption: str = "") -> Report:
        """Adds a table: one mapping a row, one column a key."""
        return self._add(markup.table(rows, caption))

    def figure(self, figure: Figure, caption: str = "") -> Report:
        """Adds a Matplotlib figure as inline SVG.

        Args:
            figure: from :mod:`adaptive.core.report.plots`, or any other.
            caption: what the reader should see in it; also its description for screen readers.
        """
        self._figures += 1
        svg = to_svg(figure, f"figure{self._figures}")
        if caption:
            svg = svg.replace(">", f"><title>{html.escape(caption)}</title>", 1)
        words = f"<figcaption>{markup.inline(caption)}</figcaption>" if caption else ""
        return self._add(f'<figure><div class="wide">{svg}</div>{words}</figure>')

    def code(self, title: str, text: str) -> Report:
        """Adds text in a fixed-width font that unfolds on a click, such as the configuration."""
        return self._add(
            f"<details><summary>{markup.inline(title)}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )

    def html(self) -> str:
        """The whole page."""
        css = resources.files("adaptive.core.report").joinpath("page.css").read_text("utf-8")
        subtitle = (
            f'<p class="subtitle">{markup.inline(self.subtitle)}</p>' if self.subtitle else ""
        )
        return "\n".join(
            [
                "<!doctype html>",
                '<html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{html.escape(self.title)}</title>",
                f"<style>\n{stylesheet()}\n{css}</style></head>",
                f"<body><main><header><h1>{markup.inline(self.title)}</h1>{subtitle}</header>",
                self._contents(),
                *self._parts,
                "</main></body></html>\n",
            ]
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page in one step."""
        atomic_write_text(path, self.html())

    def _contents(self) -> str:
        if len(self._sections) < 3:
            return ""
        links = "".join(
            f'<a href="#section-{number}">{markup.inline(title)}</a>'
            for number, title in enumerate(self._sections, 1)
        )
        return f"<nav>{links}</nav>"

    def _add(self, part: str) -> Report:
        self._parts.append(part)
        return self
