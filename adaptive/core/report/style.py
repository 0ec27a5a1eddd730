"""How figures look: Matplotlib drawings that take their colours from the page around them.

A figure is drawn in stand-in colours, one for each role. :func:`to_svg` replaces them by the page's
CSS variables, so that one SVG serves light screens, dark screens and paper.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec
from weakref import WeakSet

from adaptive.core.report.labels import arrange
from adaptive.core.report.spots import overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK = "#010203"  # text
MUTED = "#010204"  # axes, tick labels, secondary marks
GRID = "#010205"  # grid lines, empty cells
PAPER = "#010206"  # the page, for rings around marks
SERIES = tuple(f"#0103{i:02x}" for i in range(1, 7))  # data, in the order in which it is added

# Role -> colour on light and on dark. The series keep their order of lightness and stay apart for
# the common kinds of colour blindness (after Okabe and Ito, 2008).
COLOURS = {
    INK: ("ink", "#1c2024", "#e8eaed"),
    MUTED: ("muted", "#646b73", "#9aa1a9"),
    GRID: ("grid", "#e4e7ea", "#32373d"),
    PAPER: ("paper", "#ffffff", "#16181b"),
    SERIES[0]: ("s1", "#1668c7", "#5ea7f5"),
    SERIES[1]: ("s2", "#d4620a", "#f39a4d"),
    SERIES[2]: ("s3", "#0a8f72", "#3fc9a5"),
    SERIES[3]: ("s4", "#b0418c", "#e485c3"),
    SERIES[4]: ("s5", "#8a7400", "#d9c24a"),
    SERIES[5]: ("s6", "#6a7178", "#a8afb7"),
}

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "adaptive",  # the same figure is the same text
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with Matplotlib: layouts agree on all machines
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


PHONE = 4.4  # inches: text of a figure as narrow as this can be read on a phone
_REFLOWING: WeakSet[Figure] = WeakSet()


def house_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a function that draws a figure: all that it adds gets the house style."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return styled


def canvas(
    width: float = 8.2, height: float = 3.6, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes (an array for several columns).

    A single column is drawn a second time, narrow, for phones.

    Args:
        width: inches; the page is 8.2 inches wide.
        height: inches.
        columns: axes side by side.
        **options: for ``Figure.subplots``.
    """
    from matplotlib.figure import Figure

    # Without pyplot: nothing global, no display, no window.
    figure = Figure(figsize=(width, height), layout="constrained")
    if columns == 1:
        _REFLOWING.add(figure)
    return figure, figure.subplots(1, columns, **options)


def plain_log(axes: Axes, which: str) -> None:
    """Makes the ``"x"`` or ``"y"`` axis logarithmic with ticks that say 0.2 rather than 2e-1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    few = low > 0 and high / low < 30
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def narrow_svg(figure: Figure, prefix: str) -> str | None:
    """``figure`` drawn anew for a phone; None for figures that would not fit into its width."""
    if figure not in _REFLOWING:
        return None
    width, height = figure.get_size_inches()
    figure.set_size_inches(PHONE, height)
    try:
        return to_svg(figure, prefix)
    finally:
        figure.set_size_inches(width, height)


def to_svg(figure: Figure, prefix: str) -> str:
    """``figure`` as an inline SVG element whose colours and font are the page's.

    Args:
        figure: any figure; colours that are no roles stay as they are.
        prefix: put before the SVG's ids, which have to be unique in a page.
    """
    import matplotlib

    stream = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    dots, figure.dpi = figure.dpi, 72  # the unit of SVG: places lie where they are drawn
    with matplotlib.rc_context(SETTINGS):
        arrange(figure)
        figure.savefig(stream, format="svg", metadata=metadata)
        places = overlay(figure)
    figure.dpi = dots
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{prefix}-", svg)
    for colour, (role, _, _) in COLOURS.items():
        svg = svg.replace(colour, f"var(--{role})")
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    points = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', svg)
    assert points is not None
    pixels = round(float(points[1]) * 4 / 3)
    role = "group" if places else "img"
    svg = svg.replace(points[0], f'style="width:{pixels}px" role="{role}"', 1)
    return svg.strip().removesuffix("</svg>") + f"{places}</svg>"


def stylesheet() -> str:
    """CSS variables of all roles for light, dark and paper."""
    light, dark = (
        "".join(f"--{entry[0]}:{entry[theme]};" for entry in COLOURS.values()) for theme in (1, 2)
    )
    return (
        f":root{{color-scheme:light dark;{light}--shade:#0002}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}--shade:#000b}}}}"
    )
