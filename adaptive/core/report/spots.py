"""What a reader learns by pointing at a figure: places in it that have a text.

A plot says which places mean something (:func:`spot`, :func:`strip`, :func:`cell`); the page draws
an invisible shape over each, which shows the text under the mouse, on a tap, and by arrow keys.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RADIUS = 9.0  # points around a mark that a finger hits
# Of a figure. A table beside the figures would keep them alive, since axes hold their figure.
ATTRIBUTE = "_adaptive_spots"
MOST = 1500  # places of a figure: a page of many thousand would be slow to load


class Spot(NamedTuple):
    """A rectangle in the units of its axes; None is the edge of the axes, equal sides a mark."""

    axes: Axes
    left: float | None
    right: float | None
    bottom: float | None
    top: float | None
    text: str


def spot(axes: Axes, x: float, y: float, text: str) -> None:
    """Gives the mark at (x, y) a text; its lines are apart by newlines."""
    _add(Spot(axes, x, x, y, y, text))


def strip(axes: Axes, left: float, right: float, text: str) -> None:
    """Gives everything between two positions of the horizontal axis a text."""
    _add(Spot(axes, left, right, None, None, text))


def cell(
    axes: Axes, left: float | None, right: float | None, bottom: float, top: float, text: str
) -> None:
    """Gives a rectangle a text."""
    _add(Spot(axes, left, right, bottom, top, text))


def spots_of(figure: Figure) -> list[Spot]:
    """All places of a figure, in the order in which they were added."""
    return list(vars(figure).get(ATTRIBUTE, ()))


def overlay(figure: Figure) -> str:
    """SVG of the shapes over a figure that has just been drawn at 72 dots an inch; "" for none."""
    shapes = [_shape(figure, one, number) for number, one in enumerate(spots_of(figure))]
    # Seen by the mouse alone, also where an SVG lies outside of a page.
    unseen = 'class="spots" fill="none" pointer-events="all"'
    return f"<g {unseen}>{''.join(shapes)}</g>" if shapes else ""


def _add(one: Spot) -> None:
    figure = one.axes.get_figure()
    assert figure is not None
    vars(figure).setdefault(ATTRIBUTE, []).append(one)


def _shape(figure: Figure, one: Spot, number: int) -> str:
    edges = one.axes.bbox
    point = one.axes.transData.transform

    def across(x: float | None, edge: float) -> float:
        return edge if x is None else float(point((x, one.axes.get_ylim()[0]))[0])

    def up(y: float | None, edge: float) -> float:
        return edge if y is None else float(point((one.axes.get_xlim()[0], y))[1])

    xs = sorted((across(one.left, edges.x0), across(one.right, edges.x1)))
    height = figure.get_size_inches()[1] * 72  # SVG counts from the top
    ys = sorted((height - up(one.bottom, edges.y0), height - up(one.top, edges.y1)))
    if one.left == one.right and one.bottom == one.top:
        form = f'<circle cx="{xs[0]:.1f}" cy="{ys[0]:.1f}" r="{RADIUS:g}"'
    else:
        size = f'width="{xs[1] - xs[0]:.1f}" height="{ys[1] - ys[0]:.1f}"'
        form = f'<rect x="{xs[0]:.1f}" y="{ys[0]:.1f}" {size}'
    # One of a figure's places is a stop of the tab key; arrow keys lead to the others.
    stop = 0 if number == 0 else -1
    name = form[1 : form.index(" ")]
    return f'{form} tabindex="{stop}"><title>{html.escape(one.text)}</title></{name}>'
