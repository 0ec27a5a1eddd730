"""Records of a training as people read them."""

from __future__ import annotations

from typing import Any

from adaptive.core.run import duration


def record_line(record: dict[str, Any]) -> str:
    """A record as a line of text: step, pace, and the rest as it comes.

    Args:
        record: with ``step``; with ``images_per_second`` where it has ``eta``, in seconds.
    """
    record = dict(record)
    parts = [f"step {record.pop('step')}"]
    if (left := record.pop("eta", None)) is not None:
        speed = record.pop("images_per_second")
        parts.append(f"{speed:,.0f} images/s, {duration(left)} left")
    parts += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()]
    return ", ".join(parts)
