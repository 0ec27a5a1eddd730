"""Progress of loops, for people on a terminal and for people who read a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

PLAIN_EVERY = 5.0  # seconds between lines in a log file


def say(line: str) -> None:
    """Prints a line about the progress of a run; results go to stdout, this goes to stderr."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``7.3 s``, ``2 min 05 s`` or ``3 h 07 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def track(
    iterable: Iterable[T],
    total: int | None = None,
    desc: str = "",
    *,
    unit: str = "it",
    every: float = PLAIN_EVERY,
    stream: Any | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Yields from ``iterable`` and shows count, rate and time left.

    On a terminal this is a tqdm bar. Elsewhere it is a plain line at most every ``every`` seconds,
    so that a loop that is over by then prints nothing and a log of hours stays readable.

    Args:
        iterable: what to go through.
        total: how many items it has; its ``len`` when left out.
        desc: what the loop does, such as ``"score layer 3"``.
        unit: the word for one item.
        every: seconds between plain lines.
        stream: a text file to print to; stderr when left out.
        clock: seconds, for tests.
    """
    stream = sys.stderr if stream is None else stream
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)  # pyrefly: ignore[bad-argument-type]
    if stream.isatty():
        from tqdm import tqdm

        yield from tqdm(
            iterable, desc, total, leave=False, file=stream, unit=unit, dynamic_ncols=True
        )
        return
    start = shown = clock()
    for count, item in enumerate(iterable, 1):
        yield item
        now = clock()
        if now - shown >= every:
            shown = now
            print(line(desc, count, total, now - start, unit), file=stream, flush=True)


def line(desc: str, count: int, total: int | None, seconds: float, unit: str = "it") -> str:
    """One plain progress line: ``scores 12/40 (30 %), 2.4 it/s, 11.7 s left``."""
    head = f"{desc} {count}" if desc else str(count)
    if total:
        head += f"/{total} ({100 * count / total:.0f} %)"
    rate = count / seconds
    speed = f"{rate:.3g} {unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{unit}"
    if not total or count > total:
        return f"{head}, {speed}, {duration(seconds)} so far"
    return f"{head}, {speed}, {duration((total - count) / rate)} left"
