"""Keeping C libraries quiet."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Generator


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """Sends what C code writes to standard output nowhere; Python's own buffer is kept apart."""
    try:
        flush = ctypes.CDLL(None).fflush
        sys.stdout.flush()
        flush(None)
        saved = os.dup(1)
    except (OSError, TypeError, ValueError, AttributeError):  # no such library, or stdout closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)
