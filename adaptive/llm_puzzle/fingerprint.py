"""Fingerprints of files outside a run: checkpoints and texts, often too large to read whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

EDGE = 1 << 20  # bytes read at either end of a file


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over names, sizes, and the first and last mebibyte of files.

    A checkpoint of 140 GB is told from any other of its kind by its headers and edges; reading all
    of it at the start of every run would take minutes.
    """
    found = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        found.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as stream:
            found.update(stream.read(EDGE))
            stream.seek(max(0, size - EDGE))
            found.update(stream.read(EDGE))
    return found.hexdigest()


def source_fingerprint(source: str) -> str:
    """Of a text source: its files where it is one, else its name (a hub data set)."""
    path = Path(source).expanduser()
    if path.is_dir():
        return fingerprint(p for p in path.rglob("*") if p.is_file())
    return fingerprint([path]) if path.is_file() else source
