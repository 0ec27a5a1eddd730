"""The profiler: measures blocks in turns and writes rows, resuming where it was interrupted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.cost.table import MeasuredTable, Origin, Phase, Row, RowKey
from adaptive.core.hardware.clock import Clock
from adaptive.core.hardware.timing import Timings

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 5.0
MIN_ROUNDS = 7


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    Attributes:
        block_key: ``Block.key()`` of its shape, or any stable name.
        phase: "prefill" or "decode".
        batch: sequences.
        length: prompt tokens (prefill) or tokens in the KV cache before the step (decode).
        call: makes one call, always of the same work: a decode step must not grow its cache.
        dtype: of the weights.
    """

    block_key: str
    phase: Phase
    batch: int
    length: int
    call: Callable[[], Any]
    dtype: str = "fp32"

    def row_key(self, mode: str) -> RowKey:
        """Key of the row that holds this subject's time in a clock's mode."""
        return RowKey(self.block_key, self.phase, self.batch, self.length, self.dtype, mode)


def default_table_path(origin: Origin) -> Path:
    """The user's table for an origin, under ``$ADAPTIVE_CACHE`` or ``~/.cache/adaptive``."""
    root = Path(os.environ.get("ADAPTIVE_CACHE") or Path.home() / ".cache" / "adaptive")
    return root / "costs" / f"{origin.device}-{origin.torch}-{origin.threads}.csv"


def profile(
    subjects: Mapping[str, Subject],
    table: MeasuredTable,
    clock: Clock,
    calls: int = 10,
    *,
    target_spread: float = 0.01,
    max_seconds: float = 60.0,
    track: Callable[..., Any] | None = None,
) -> MeasuredTable:
    """Measures what ``table`` lacks and adds it.

    All missing subjects are measured together, in turns, so that the machine's drift is spread
    over all alike. Rows that have settled are saved every few seconds; run again after an
    interruption, those are skipped.

    Args:
        subjects: name to subject; several may share a row key, the first is then measured.
        table: receives the rows; saved if it has a path.
        clock: device and mode.
        calls: calls per timing (see the clocks for how they are chained).
        target_spread: relative error of the medians at which to stop.
        max_seconds: stop measuring after this time; medians that have not settled by then are
            kept, with their spread, and named in a warning of the log.
        track: progress display ``track(iterable, total=..., desc=...)``.

    Returns:
        ``table``.
    """
    missing: dict[RowKey, Subject] = {}
    for subject in subjects.values():
        key = subject.row_key(clock.mode)
        if key not in table:
            missing.setdefault(key, subject)
    if not missing:
        return table
    names = {str(i): key for i, key in enumerate(missing)}
    saved = time.monotonic()

    def keep(timings: Timings, settled_only: bool) -> None:
        for name, timing in timings.items():
            if not (settled_only and name in timings.unsettled):
                table.add(Row(names[name], timing.median, timing.spread, timing.repeats))
        if table.path:
            table.save()

    def checkpoint(timings: Timings) -> None:
        nonlocal saved
        if timings[next(iter(names))].repeats >= MIN_ROUNDS and (
            time.monotonic() - saved >= CHECKPOINT_SECONDS
        ):
            keep(timings, settled_only=True)
            saved = time.monotonic()

    timings = clock.compare(
        {name: missing[key].call for name, key in names.items()},
        calls,
        target_spread=target_spread,
        max_seconds=max_seconds,
        min_rounds=MIN_ROUNDS,
        track=track,
        desc=f"timing {len(names)} blocks",
        on_round=checkpoint,
    )
    keep(timings, settled_only=False)
    if timings.unsettled:
        worst = max(timings.unsettled, key=lambda name: timings[name].error)
        log.warning(
            "%d of %d medians have not settled within %.0f s; the worst, %s %s, is known to "
            "%.1f %% (asked: %.1f %%)",
            len(timings.unsettled), len(names), max_seconds, names[worst].block,
            names[worst].phase, 100 * timings[worst].error, 100 * target_spread,
        )  # fmt: skip
    return table
