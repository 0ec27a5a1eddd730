"""The text form of a measured table: one JSON header line, then CSV, one sorted row a line.

    #{"format": "adaptive-costs", "version": 2, "device": "...", "torch": "...", ...}
    block,phase,batch,length,dtype,mode,seconds,spread,repeats
    "attention(h=64,heads=4,kv=2,d=16)",decode,1,32,fp32,eager,1.25e-05,0.01,40

The header counts the rows, so a truncated copy is noticed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaptive.core.cost.table import Origin, Row, RowKey
from adaptive.core.errors import UserError
from adaptive.core.run.atomic import atomic_write_text

FORMAT, VERSION = "adaptive-costs", 2
COLUMNS = (*RowKey._fields, "seconds", "spread", "repeats")


def write_table(
    path: Path, origin: Origin, rows: Sequence[Row], notes: Mapping[str, Any] | None = None
) -> None:
    """Writes a table atomically, making its directory; ``notes`` go into the header."""
    header = {"format": FORMAT, "version": VERSION, **asdict(origin), "rows": len(rows)}
    text = io.StringIO()
    text.write(f"#{json.dumps(header | {'notes': dict(notes or {})})}\n")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for row in rows:
        lines.writerow((*row.key, f"{row.seconds:.6g}", f"{row.spread:.4g}", row.repeats))
    atomic_write_text(path, text.getvalue())


def read_table(path: Path) -> tuple[Origin, list[Row], dict[str, Any]]:
    """Origin, rows and notes of a table; UserError where the file is missing or damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the cost table {path}: {error}") from None
    first, _, rest = text.partition("\n")
    try:
        header = json.loads(first.removeprefix("#"))
        found, version = header["format"], header["version"]
        origin = Origin(header["device"], header["torch"], header["threads"])
        expected, notes = header["rows"], header.get("notes", {})
        if found != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a cost table: no {FORMAT} {VERSION} header line") from None
    if version != VERSION:
        raise UserError(
            f"{path} is a cost table of format {version}, read is {VERSION}: measure again into "
            "another file"
        )
    records = list(csv.reader(io.StringIO(rest)))
    if not records or tuple(records[0]) != COLUMNS:
        raise UserError(f"{path}: the second line must name the columns {','.join(COLUMNS)}")
    if len(records) - 1 != expected or not rest.endswith("\n"):
        raise UserError(
            f"{path} is truncated or was edited: {len(records) - 1} rows, its header promises "
            f"{expected}; delete it and measure again"
        )
    return origin, [_row(path, n, r) for n, r in enumerate(records[1:], start=3)], notes


def _row(path: Path, line: int, record: list[str]) -> Row:
    try:
        block, phase, batch, length, dtype, mode, seconds, spread, repeats = record
        key = RowKey(block, phase, int(batch), int(length), dtype, mode)  # type: ignore[arg-type]
        return Row(key, float(seconds), float(spread), int(repeats))
    except ValueError as error:
        reason = str(error) if isinstance(error, UserError) else f"cannot read {record}"
        raise UserError(f"{path}, line {line}: {reason}") from None
