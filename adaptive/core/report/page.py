"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive.core.report import markup
from adaptive.core.report.provenance import provenance
from adaptive.core.report.style import narrow_svg, stylesheet, to_svg
from adaptive.core.run.atomic import atomic_write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A browser refuses whatever is not in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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

    def fold(self, title: str, rows: Sequence[Mapping[str, Any]], caption: str = "") -> Report:
        """Adds a table that unfolds on a click: too long to be read, there to be looked up."""
        summary = f"<summary>{markup.inline(title)}</summary>"
        return self._add(f"<details>{summary}{markup.table(rows, caption)}</details>")

    def figure(
        self, figure: Figure, caption: str = "", legend: Mapping[str, str] | None = None
    ) -> Report:
        """Adds a Matplotlib figure as inline SVG, and once more for the width of a phone.

        Args:
            figure: from :mod:`adaptive.core.report.plots`, or any other.
            caption: what the reader should see in it; also its description for screen readers.
            legend: name to colour, for figures without room for a legend, such as photographs.
        """
        number = self._next()
        drawn = {"": to_svg(figure, f"figure{number}")}
        if narrow := narrow_svg(figure, f"phone{number}"):
            drawn = {" roomy": drawn[""], " phone": narrow}
        elif not any(axes.axison or axes.get_title("left") for axes in figure.axes):
            drawn = {" picture": drawn[""]}  # without words, it may be as small as it has to be
        pictures = "".join(
            f'<div class="wide{kind}">{_described(svg, caption)}</div>'
            for kind, svg in drawn.items()
        )
        keys = "".join(
            f'<li><i style="background:{html.escape(colour)}"></i>{markup.inline(name)}</li>'
            for name, colour in (legend or {}).items()
        )
        words = f'<ul class="legend">{keys}</ul>' if keys else ""
        words += f"<figcaption>{markup.inline(caption)}</figcaption>" if caption else ""
        return self._add(f"<figure>{pictures}{words}</figure>")

    def panels(self, figures: Mapping[str, Figure], caption: str = "") -> Report:
        """Adds small figures side by side, or one below the other where the page is narrow.

        Args:
            figures: what each shows, for screen readers, to a figure; some 2.6 inches wide.
            caption: of all of them.
        """
        drawn = "".join(
            f"<div>{_described(to_svg(figure, f'figure{self._next()}'), words)}</div>"
            for words, figure in figures.items()
        )
        words = f"<figcaption>{markup.inline(caption)}</figcaption>" if caption else ""
        return self._add(f'<figure><div class="panels">{drawn}</div>{words}</figure>')

    def facts(self, values: Mapping[str, str]) -> Report:
        """Adds names with their texts, one below the other."""
        pairs = "".join(
            f"<dt>{markup.inline(name)}</dt><dd>{markup.inline(text)}</dd>"
            for name, text in values.items()
        )
        return self._add(f'<dl class="facts">{pairs}</dl>')

    def command(self, text: str) -> Report:
        """Adds a line to be copied to a shell."""
        return self._add(f'<pre class="command">{html.escape(text)}</pre>')

    def code(self, title: str, text: str) -> Report:
        """Adds text in a fixed-width font that unfolds on a click, such as the configuration."""
        return self._add(
            f"<details><summary>{markup.inline(title)}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
        )

    def provenance(self, config: Any, run: str | os.PathLike[str]) -> Report:
        """Ends the page: command, environment, time of the stages, configuration.

        Args:
            config: the dataclass of the run.
            run: its directory, whose ``run.json`` and manifests are shown.
        """
        return provenance(self, config, Path(run))

    def html(self) -> str:
        """The whole page."""
        css, script = (
            resources.files("adaptive.core.report").joinpath(name).read_text("utf-8")
            for name in ("page.css", "page.js")
        )
        subtitle = (
            f'<p class="subtitle">{markup.inline(self.subtitle)}</p>' if self.subtitle else ""
        )
        return "\n".join(
            [
                "<!doctype html>",
                '<html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
                f"<title>{html.escape(self.title)}</title>",
                f"<style>\n{stylesheet()}\n{css}</style></head>",
                f"<body><main><header><h1>{markup.inline(self.title)}</h1>{subtitle}</header>",
                self._contents(),
                *self._parts,
                f"</main><script>\n{script}</script></body></html>\n",
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

    def _next(self) -> int:
        self._figures += 1
        return self._figures


def _described(svg: str, words: str) -> str:
    """An SVG with its description for screen readers."""
    label = f' aria-label="{html.escape(words)}"' if words else ""
    return svg.replace("<svg", f"<svg{label}", 1)
