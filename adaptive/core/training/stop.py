"""Stops that wait until a training can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from adaptive.core.run import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Within its block a signal to stop is remembered instead of ending a step half-way.

    The loop asks :meth:`asked` after each step, saves and leaves the block, and there the signal
    does what it did before: it raises ``KeyboardInterrupt``, or ends the process. A second signal
    is not kept waiting. One that the process ignores, as those behind ``nohup`` do, stays ignored.
    Outside the main thread, where Python takes no signals, nothing is changed.

    Args:
        ranks: processes that stop together, after the same step.
    """

    def __init__(self, ranks: Ranks | None = None):
        self._ranks = ranks or Ranks()
        self._number = 0
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether this process, or another one of the ranks, has been told to stop."""
        self._number = int(self._ranks.max(float(self._number)))
        return self._number > 0

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self._number and kind is None:
            signal.raise_signal(signal.Signals(self._number))

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self._number:
            self._restore()
            signal.raise_signal(signal.Signals(number))
        self._number = number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
