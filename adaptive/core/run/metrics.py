"""``metrics.jsonl``: one JSON record a logged step, with no record twice after a resume."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, SupportsFloat

from adaptive.core.run.atomic import atomic_write_text, to_plain
from adaptive.core.run.tracking import Tracking


class MetricsLog:
    """Appends the records of one stage at a time.

    A record is known by its stage, step, field names and the values that are not floats (labels
    and counts); when a stage that was killed logs a step again, the newer record counts.

    Args:
        path: the file; it need not exist.
        tracking: gets every record too.
    """

    def __init__(self, path: Path, tracking: Tracking | None = None):
        self.path = path
        self._tracking = tracking or Tracking()

    def start(self, stage: str, *, anew: bool) -> None:
        """Prepares for ``stage``: drops a torn last line and, if ``anew``, its old records."""
        self._rewrite([r for r in self.records() if not (anew and r["stage"] == stage)])

    def log(self, stage: str, step: SupportsFloat | None, metrics: dict[str, Any]) -> None:
        """Appends one record with the time of day (seconds since 1970)."""
        record = to_plain({"stage": stage, "step": step, "time": time.time()} | metrics)
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())  # one call: a kill cannot split it in user space
        finally:
            os.close(descriptor)
        self._tracking.log(stage, record["step"], metrics)

    def finish(self) -> None:
        """Drops records that a later one with the same identity replaces."""
        latest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for record in self.records():
            latest.pop(_identity(record), None)  # the newer one takes its own place in the order
            latest[_identity(record)] = record
        self._rewrite(list(latest.values()))

    def records(self) -> list[dict[str, Any]]:
        """All whole records, oldest first."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        return [json.loads(line) for line in lines]

    def _rewrite(self, records: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        if text != (self.path.read_text() if self.path.exists() else None):
            atomic_write_text(self.path, text)


def _identity(record: dict[str, Any]) -> tuple[Any, ...]:
    labels = {k: v for k, v in record.items() if k == "step" or not isinstance(v, float)}
    return tuple(record), json.dumps(labels, sort_keys=True)
