"""Which numbers of runs a frontier is about."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaptive.core.collect.gather import Run
from adaptive.core.errors import UserError
from adaptive.core.run.task import Axis

WALL = "wall_seconds"
"""In ``run.json``; the other numbers are of the summary."""

BEST = (None, "least", "most")
"""What a setting may say of a side's better end."""


def number(run: Run, name: str) -> float | None:
    """A finite number of a run's summary, or its wall time; None where it has none."""
    value = run.record.get(WALL) if name == WALL else run.summary.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def choose_axis(
    side: str, asked: str | None, best: str | None, known: Sequence[Axis], done: Sequence[Run]
) -> Axis | None:
    """The number that one side of a frontier is about.

    Args:
        side: what asks for it, for the message.
        asked: name of a number; None: the one of ``known`` that most runs have.
        best: ``least`` or ``most``; None: as ``known`` has it, else least.
        known: what the runs' task trades.
        done: runs that have ended well.

    Returns:
        None where nothing is asked for, and no run has a number that is known.

    Raises:
        UserError: no run has the number that is asked for.
    """
    if asked is not None:
        if done and not any(number(run, asked) is not None for run in done):
            names = sorted({n for run in done for n in run.summary if number(run, n) is not None})
            raise UserError(
                f"{side}={asked}: no run has such a number, choose one of {', '.join(names)}"
            )
        axis = next((a for a in known if a.name == asked), Axis(asked))
    else:
        # The one that most runs have; of several the first.
        counts = [sum(number(run, a.name) is not None for run in done) for a in known]
        if not any(counts):
            return None
        axis = known[counts.index(max(counts))]
    return axis if best is None else Axis(axis.name, best == "most")
