"""From values to HTML: cells, tables and a little Markdown, everything escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "–"
# A number with at most a sign before it and a unit behind it, such as "1.53x" or "+2.2 %".
NUMERAL = re.compile(r"[+x±−-]? ?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?[\s\u00a0]?[^\d,;():]{0,10}")


def inline(text: str) -> str:
    """Escaped ``text`` with `code`, **bold** and [links](https://...), or to files (./...)."""
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[([^\]]+)\]\(((?:https?://|\.\.?/)[^)\s]+)\)", r'<a href="\2">\1</a>', text)


def paragraphs(text: str) -> str:
    """Paragraphs (apart by blank lines) and lists (lines that begin with ``- ``)."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines()]
        if all(line.startswith("- ") for line in lines):
            items = "".join(f"<li>{inline(line[2:])}</li>" for line in lines)
            blocks.append(f"<ul>{items}</ul>")
        else:
            blocks.append(f"<p>{inline(' '.join(lines))}</p>")
    return "\n".join(blocks)


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """A table with a column for each key, in the order of first appearance.

    Numbers stand to the right with as many decimals as their column needs, so that their decimal
    points are below each other; so do texts that are numbers with a unit. The caption stays in
    view where the table is wider than the page and scrolls.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = {column: format_column([row.get(column) for row in rows]) for column in columns}
    numeric = {column: _is_numeric([row.get(column) for row in rows]) for column in columns}
    kind = {column: ' class="n"' if numeric[column] else "" for column in columns}
    head = "".join(f'<th scope="col"{kind[c]}>{inline(str(c))}</th>' for c in columns)
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind[c]}>{inline(cells[c][i])}</td>" for c in columns) + "</tr>"
        for i in range(len(rows))
    )
    title = f'<p class="caption">{inline(caption)}</p>' if caption else ""
    label = f' aria-label="{html.escape(caption)}"' if caption else ""
    return (
        # With a tab stop, for a keyboard has to reach what scrolls.
        f'{title}<div class="wide table" tabindex="0"><table{label}>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def format_column(values: Iterable[Any]) -> list[str]:
    """The cells of one column; floats share a number of decimals where their sizes allow it."""
    values = list(values)
    sizes = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v != 0]
    decimals: int | None = None
    if sizes and max(sizes) < 1e6 and min(sizes) >= 1e-4 and max(sizes) / min(sizes) < 1e5:
        # Four digits of the largest, two of the smallest.
        decimals = max(0, 3 - math.floor(math.log10(max(sizes))))
        decimals = min(6, max(decimals, 1 - math.floor(math.log10(min(sizes)))))
    return [_cell(value, decimals) for value in values]


def format_number(value: Any) -> str:
    """One value on its own: four digits, thousands apart."""
    return format_column([value])[0]


def _cell(value: Any, decimals: int | None) -> str:
    if value is None:
        return MISSING
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:.3e}" if decimals is None and value != 0 else f"{value:,.{decimals or 0}f}"
    return str(value)


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column is one of numbers, as numbers or as texts with a unit."""
    told = [value for value in values if value not in (None, "", "-", MISSING)]
    return all(
        _is_number(value) or (isinstance(value, str) and bool(NUMERAL.fullmatch(value)))
        for value in told
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
