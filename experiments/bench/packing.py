"""How well and how fast text regions are packed: shelves with a width search against other ways.

    python experiments/bench/packing.py        # seconds on one core

All pack the same rectangles, in turns: our shelves; MaxRects with the lowest place first (Jylanki
2010), on the canvas width that the shelves chose, and on five widths around it, the best of which
counts; and rows in the given order. Columns: canvas pixels by the pixels of the rectangles, sides
rounded up to the stride, and milliseconds; medians over sets. From 20 rectangles on, canvases of
MaxRects are 4 % larger and take 1.5 to 30 times as long (one busy EPYC core).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout without an install

from adaptive.textscale.packing import pack  # noqa: E402

Box = tuple[int, int, int, int]


def max_rects(size_N2: np.ndarray, width: int, stride: int) -> int:
    """Canvas pixels of MaxRects on a strip of a width, rectangles by falling area."""
    free: list[Box] = [(0, 0, width, 10**9)]
    height = 0
    for w, h in sorted(map(tuple, size_N2.tolist()), key=lambda s: -s[0] * s[1]):
        fits = [b for b in free if b[2] - b[0] >= w and b[3] - b[1] >= h]
        x0, y0, _, _ = min(fits, key=lambda b: (b[1] + h, b[2] - b[0] - w))
        taken = (x0, y0, x0 + w, y0 + h)
        free = [part for box in free for part in without(box, taken)]
        free = [a for a in free if not any(a != b and inside(a, b) for b in free)]
        height = max(height, y0 + h)
    return width * (-(-height // stride) * stride)


def without(box: Box, taken: Box) -> list[Box]:
    """The largest boxes in ``box`` that avoid ``taken``."""
    x0, y0, x1, y1 = box
    a0, b0, a1, b1 = taken
    if a0 >= x1 or a1 <= x0 or b0 >= y1 or b1 <= y0:
        return [box]
    parts = [(x0, y0, a0, y1), (a1, y0, x1, y1), (x0, y0, x1, b0), (x0, b1, x1, y1)]
    return [p for p in parts if p[2] > p[0] and p[3] > p[1]]


def inside(a: Box, b: Box) -> bool:
    """Whether ``a`` lies in ``b``."""
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def one_after_the_other(size_N2: np.ndarray, width: int, stride: int) -> int:
    """Canvas pixels of rows in the given order."""
    x = y = row = 0
    for w, h in size_N2.tolist():
        if x + w > width:
            x, y, row = 0, y + row, 0
        x, row = x + w, max(row, h)
    return width * (-(-(y + row) // stride) * stride)


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--sets", type=int, default=15, help="sets of rectangles of each number")
    arguments.add_argument("--stride", type=int, default=32)
    options = arguments.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'n':>4}  {'shelves':>15}  {'MaxRects':>15}  {'MaxRects x5':>15}  {'in order':>15}")
    for n in (1, 5, 20, 50, 100):
        rows: dict[str, list[tuple[float, float]]] = {}
        for _ in range(options.sets):
            height_N = rng.uniform(60, 130, n)
            width_N = height_N * rng.uniform(0.8, 5, n)
            size_N2 = np.stack([width_N, height_N], 1).astype(int)
            shelves = pack(size_N2, stride=options.stride, gutter=0, max_side=8192)
            width = int(shelves.size_M2[0, 0])
            steps = [width + options.stride * d for d in (-2, -1, 0, 1, 2)]
            around = [w for w in steps if w >= size_N2[:, 0].max()]
            ways = {
                "shelves": lambda s=size_N2: (
                    pack(s, stride=options.stride, gutter=0, max_side=8192).pixels
                ),
                "MaxRects": lambda s=size_N2, w=width: max_rects(s, w, options.stride),
                "MaxRects x5": lambda s=size_N2, a=around: min(
                    max_rects(s, w, options.stride) for w in a
                ),
                "in order": lambda s=size_N2, w=width: one_after_the_other(s, w, options.stride),
            }
            for name, way in ways.items():
                start = time.perf_counter()
                pixels = way()
                spent = 1e3 * (time.perf_counter() - start)
                rows.setdefault(name, []).append((pixels / int(size_N2.prod(1).sum()), spent))
        cells = []
        for row in rows.values():
            ratio, spent = (statistics.median(column) for column in zip(*row, strict=True))
            cells.append(f"{ratio:6.3f} {spent:5.1f} ms")
        print(f"{n:>4}  " + "  ".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
