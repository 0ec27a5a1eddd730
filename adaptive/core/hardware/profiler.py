"""The profiler: measures blocks in turns and writes rows, resuming where it was interrupted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.cost.block import Block
from adaptive.core.cost.table import MeasuredTable, Origin, Phase, Row, RowKey
from adaptive.core.cost.table_file import VERSION
from adaptive.core.hardware.clock import Clock
from adaptive.core.hardware.timing import Timing, Timings

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 5.0
MIN_ROUNDS = 7


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    Attributes:
        block: the shape of which it is the time, or a name for something that no shape describes.
        phase: "prefill" or "decode".
        batch: sequences.
        length: prompt tokens (prefill) or tokens in the KV cache before the step (decode).
        make: builds what is measured and returns a call of it, always of the same work: a decode
            step must not grow its cache. Only what a table lacks is built.
        dtype: of the weights.
        nbytes: device memory that it holds, about; decides what is measured at the same time.
    """

    block: Block | str
    phase: Phase
    batch: int
    length: int
    make: Callable[[], Callable[[], Any]]
    dtype: str = "fp32"
    nbytes: float = 0.0

    def row_key(self, mode: str) -> RowKey:
        """Key of the row that holds this subject's time in a clock's mode."""
        return RowKey.of(self.block, self.phase, self.batch, self.length, self.dtype, mode)

    @property
    def forward(self) -> tuple[Any, ...]:
        """What it shares with the blocks that run beside it: a prefill, or a batch's decode."""
        length = self.length if self.phase == "prefill" else None
        return self.phase, self.batch, length, self.dtype


def default_table_path(origin: Origin) -> Path:
    """The user's table for an origin, under ``$ADAPTIVE_CACHE`` or ``~/.cache/adaptive``."""
    root = Path(os.environ.get("ADAPTIVE_CACHE") or Path.home() / ".cache" / "adaptive")
    # A new format begins a new table: an older one is in nobody's way.
    return root / f"costs-{VERSION}" / f"{origin.device}-{origin.torch}-{origin.threads}.csv"


def profile(
    subjects: Iterable[Subject],
    table: MeasuredTable,
    clock: Clock,
    calls: int | None = None,
    *,
    target_spread: float = 0.01,
    max_seconds: float = 60.0,
    memory: float | None = None,
    track: Callable[..., Any] | None = None,
) -> MeasuredTable:
    """Measures what ``table`` lacks and adds it.

    What runs together in a model, the blocks of one phase, batch and length, is measured together,
    in turns: the machine's drift is spread over all alike, and caches, clocks and power are what
    they are in the model. (Decode steps between prefills that heat an H100 up take 10 % longer.)
    Rows that have settled are saved every few seconds; run again after an interruption, those are
    skipped.

    Args:
        subjects: several may share a row key, the first is then measured.
        table: receives the rows; saved if it has a path.
        clock: device and mode.
        calls: calls per timing; None lets the clock choose (see the clocks).
        target_spread: relative error of the medians at which to stop.
        max_seconds: stop measuring after this time; medians that have not settled by then are
            kept, with their spread, and named in a warning of the log.
        memory: bytes that subjects measured together may hold; None takes no limit on a CPU and
            most of what is free on a GPU.
        track: progress display ``track(iterable, total=..., desc=...)``.

    Returns:
        ``table``.
    """
    missing: dict[RowKey, Subject] = {}
    for subject in subjects:
        key = subject.row_key(clock.mode)
        if key not in table:
            missing.setdefault(key, subject)
    groups = list(_groups(missing, clock, memory))
    saver = _Saver(table)
    unsettled: dict[RowKey, Timing] = {}
    many = track is not None and len(groups) > 1
    shown = track(groups, total=len(groups), desc="profiling") if track and many else groups
    for group in shown:
        timings = clock.compare(
            {str(i): missing[key].make() for i, key in enumerate(group)},
            calls,
            target_spread=target_spread,
            max_seconds=max_seconds * len(group) / len(missing),
            min_rounds=MIN_ROUNDS,
            track=None if many else track,
            desc=f"timing {len(group)} blocks",
            on_round=lambda timings, group=group: saver.checkpoint(group, timings),
        )
        saver.keep(group, timings, settled_only=False)
        unsettled |= {group[int(name)]: timings[name] for name in timings.unsettled}
    if unsettled:
        worst = max(unsettled, key=lambda key: unsettled[key].error)
        log.warning(
            "%d of %d medians have not settled within %.0f s; the worst, %s %s, is known to "
            "%.1f %% (asked: %.1f %%)",
            len(unsettled), len(missing), max_seconds, worst.block,
            worst.phase, 100 * unsettled[worst].error, 100 * target_spread,
        )  # fmt: skip
    return table


def _groups(
    missing: Mapping[RowKey, Subject], clock: Clock, memory: float | None
) -> Iterator[list[RowKey]]:
    """Subjects that are measured at the same time."""
    if memory is None:
        memory = clock.free_memory()
    together: dict[Any, list[RowKey]] = {}
    for key, subject in missing.items():
        together.setdefault(subject.forward, []).append(key)
    for keys in together.values():
        group: list[RowKey] = []
        held = 0.0
        for key in keys:
            nbytes = missing[key].nbytes
            if group and (held + nbytes > memory or len(group) == clock.group_size):
                yield group
                group, held = [], 0.0
            group.append(key)
            held += nbytes
        yield group


class _Saver:
    """Puts timings into the table and, every few seconds, the table on disk."""

    def __init__(self, table: MeasuredTable):
        self.table, self.saved = table, time.monotonic()

    def keep(self, group: Sequence[RowKey], timings: Timings, settled_only: bool) -> None:
        for name, timing in timings.items():
            if not (settled_only and name in timings.unsettled):
                key = group[int(name)]
                self.table.add(Row(key, timing.median, timing.spread, timing.repeats))
        if self.table.path:
            self.table.save()
        self.saved = time.monotonic()

    def checkpoint(self, group: Sequence[RowKey], timings: Timings) -> None:
        enough = next(iter(timings.values())).repeats >= MIN_ROUNDS
        if enough and time.monotonic() - self.saved >= CHECKPOINT_SECONDS:
            self.keep(group, timings, settled_only=True)
