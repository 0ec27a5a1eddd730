"""Names beside marks, put where they hide neither each other nor the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

# Points right and up of the mark, and which side of the text is there; the first are preferred.
PLACES = (
    (8, 7, "left", "bottom"),
    (8, -7, "left", "top"),
    (-8, 7, "right", "bottom"),
    (-8, -7, "right", "top"),
    (0, 12, "center", "bottom"),
    (0, -12, "center", "top"),
    (12, 0, "left", "center"),
    (-12, 0, "right", "center"),
)

CLEAR = 8  # points around a name that are better left free

# Of a figure. A table beside the figures would keep them alive: a name holds its figure.
ATTRIBUTE = "_adaptive_labels"


def label(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Writes ``text`` beside the mark at (x, y); :func:`arrange` finds the side."""
    figure = axes.get_figure()
    assert figure is not None
    written = axes.annotate(text, (x, y), (8, 7), textcoords="offset points", **style)
    written.set_in_layout(False)  # room for the data does not depend on where names end up
    vars(figure).setdefault(ATTRIBUTE, []).append(written)


def arrange(figure: Figure) -> None:
    """Moves the names of a figure; to be called when its size is known."""
    labels: list[Annotation] = vars(figure).get(ATTRIBUTE, [])
    if not labels:
        return
    figure.draw_without_rendering()
    taken: list[Bbox] = []
    for written in labels:
        axes = written.axes
        assert axes is not None
        marks = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
        mark_N2 = np.concatenate([_along(points) for points in marks])

        others = [axes.transData.transform(other.xy) for other in labels if other is not written]

        def cost(
            place: tuple[Any, ...], written=written, mark_N2=mark_N2, axes=axes, others=others
        ) -> float:
            box = _put(written, place)
            inside = (mark_N2 >= (box.x0, box.y0)) & (mark_N2 <= (box.x1, box.y1))
            # A name close to another one, or to another's mark, is taken for that one's.
            area, around = box.width * box.height, box.padded(CLEAR)
            mistaken = sum(around.contains(x, y) for x, y in others)
            hidden = sum(_shared(box, other) + 0.2 * _shared(around, other) for other in taken)
            outside = 1 - _shared(box, axes.bbox) / area
            return 20 * (hidden / area + outside) + 5 * mistaken + float(inside.all(1).sum())

        best = min(PLACES, key=cost)
        taken.append(_put(written, best))


def _put(written: Annotation, place: tuple[Any, ...]) -> Bbox:
    x, y, across, up = place
    written.set_position((x, y))
    written.set_horizontalalignment(across)
    written.set_verticalalignment(up)
    return written.get_window_extent()


def _along(points_N2: np.ndarray) -> np.ndarray:
    """Points and some between them, since lines are in the way too."""
    if len(points_N2) < 2:
        return points_N2
    share = np.linspace(0, 1, 12)[:, None, None]
    return (points_N2[:-1] * (1 - share) + points_N2[1:] * share).reshape(-1, 2)


def _shared(one: Bbox, other: Bbox) -> float:
    """Area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)
