"""The page of a profile: what a block takes, by its size and by the work it is given."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adaptive.core.cost import Block, Fit, MeasuredTable, Row
from adaptive.core.report import Report, curves_plot
from adaptive.core.report.style import SERIES
from adaptive.core.resource import format_quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = list[tuple[int, float]]


def profile_page(
    title: str, table: MeasuredTable, blocks: Iterable[Block], dtype: str, error: float
) -> Report:
    """Times as curves, the models fitted to them, and all rows.

    Args:
        title: of the page.
        table: what was measured, now and before, of this model and of others.
        blocks: those of this model, which are drawn.
        dtype: of the profile.
        error: mean error of interpolated times, a share.
    """
    own = {block.key() for block in blocks}
    page = Report(title, f"{table.origin.device}, {dtype}")
    page.numbers(
        {"rows": len(table), "interpolation error": f"{100 * error:.1f} %"},
        {"interpolation error": "mean; widths, KV heads and lengths left out in turn"},
    )
    asked = (row for row in table if (row.key.dtype, row.key.mode) == (dtype, table.mode))
    drawn = list(pictures(row for row in asked if row.key.block in own))
    if drawn:
        page.section("Times")
    for figure, caption in drawn:
        page.figure(figure, caption)
    page.section("Fitted models")
    fits = table.fits()
    if fits:
        page.text("They interpolate between the sizes that were measured.").facts(described(fits))
    else:
        page.text("None: the rows show nothing but a fixed time of each kind of block.")
    page.section("Rows").fold(
        f"All {len(table)} rows",
        [
            {
                **row.key._asdict(),
                "time": format_quantity(row.seconds, "latency"),
                "spread": f"{row.spread:.2%}",
            }
            for row in table
        ],
        "Median time of a call, and half the interquartile range.",
    )
    return page


def described(fits: Iterable[Fit]) -> dict[str, str]:
    """What was fitted, to its model in words."""
    return dict(fit.describe().split(": ", 1) for fit in fits)


def pictures(rows: Iterable[Row]) -> Iterator[tuple[Figure, str]]:
    """A figure for each kind of block and phase, a curve for each size of block, with a caption.

    Kinds that came in one size share a figure.
    """
    kinds: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        kinds[row.key.block.partition("(")[0], row.key.phase][row.key.block].append(row)
    alone: dict[str, dict[str, Points]] = defaultdict(dict)
    for (kind, phase), blocks in kinds.items():
        batch = _usual_batch(list(blocks.values()))
        curves = {name: _points(found, batch) for name, found in blocks.items()}
        curves = {name: points for name, points in curves.items() if len(points) > 1}
        if len(curves) > 1 or (curves and batch):
            shared, names = labels(list(curves))
            kept = {names[block]: curves[block] for block in _some(list(curves))}
            at = f", batch {batch}" if batch else ""
            yield _figure(kept, "length" if batch else "tokens"), f"{kind}, {phase}{at}{shared}"
        elif curves:
            alone[phase][kind] = next(iter(curves.values()))
    for phase, curves in alone.items():
        yield _figure(curves, "tokens"), f"Blocks of one size, {phase}: {', '.join(curves)}"


def labels(blocks: Sequence[str]) -> tuple[str, dict[str, str]]:
    """What blocks of a kind have in common, and for each what tells it from the others.

    >>> labels(["ffn(h=192,i=128)", "ffn(h=192,i=512)"])
    (': h=192', {'ffn(h=192,i=128)': 'i=128', 'ffn(h=192,i=512)': 'i=512'})
    """
    parts = {block: re.findall(r"[^(),]+=[^(),]+", block) for block in blocks}
    counts = Counter(part for found in parts.values() for part in set(found))
    own = {
        block: ", ".join(part for part in found if counts[part] < len(blocks)) or block
        for block, found in parts.items()
    }
    common = [part for part in next(iter(parts.values())) if counts[part] == len(blocks)]
    return f": {', '.join(common)}" if common else "", own


def _usual_batch(blocks: Sequence[Sequence[Row]]) -> int | None:
    """Of blocks whose time depends on lengths, the batch that most rows have; else None."""
    keys = [row.key for rows in blocks for row in rows]
    if len({key.length for key in keys}) == 1:
        return None
    counts = Counter(key.batch for key in keys)
    return max(counts, key=lambda batch: (counts[batch], batch))


def _points(rows: Iterable[Row], batch: int | None) -> Points:
    """Tokens, or lengths at a batch, and milliseconds."""
    if batch is None:
        return sorted((row.key.batch * row.key.length, 1e3 * row.seconds) for row in rows)
    return sorted((row.key.length, 1e3 * row.seconds) for row in rows if row.key.batch == batch)


def _some(names: Sequence[str]) -> list[str]:
    """As many as there are colours, evenly chosen."""
    count = min(len(names), len(SERIES))
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]


def _figure(curves: Mapping[str, Any], x: str) -> Figure:
    return curves_plot(curves, x=x, y="time (ms)", log=True, doublings=True)
