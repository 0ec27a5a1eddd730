"""Tables of measured times that come with the package, a directory a published device.

>>> from adaptive.core.cost import shipped_table
>>> shipped_table("h100-sxm").origin.device
'nvidia-h100-80gb-hbm3'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive.core.cost.rows import CONTEXT_STRIDE, Origin, Row, RowKey
from adaptive.core.cost.table import MeasuredTable
from adaptive.core.errors import UserError

TABLES = Path(__file__).parent / "tables"


def shipped_devices() -> list[str]:
    """Names of the devices, as in ``hardware.DEVICES``, that tables were measured on."""
    return sorted(path.name for path in TABLES.iterdir() if any(path.glob("*.csv")))


def shipped_files(device: str) -> list[Path]:
    """The tables of a device, one a model and dtype.

    Raises:
        UserError: there is none.
    """
    if device not in shipped_devices():
        raise UserError(
            f"no measured table of {device!r} comes with adaptive, choose one of "
            f"{', '.join(shipped_devices())}, or measure your own with +exp=profile"
        )
    return sorted((TABLES / device).glob("*.csv"))


def shipped_table(
    device: str,
    mode: str = "graph",
    *,
    origin: Origin | None = None,
    force: bool = False,
    **options: Any,
) -> MeasuredTable:
    """All shipped rows of a device as one table without a file.

    Args:
        device: name in ``hardware.DEVICES``.
        mode: of the clock. Rows of graphs are priced in strides of the context, as engines run.
        origin: what the rows must have been measured on; None accepts any.
        force: use rows of another origin all the same.
        options: of ``MeasuredTable``.

    Raises:
        UserError: there is none, or it is of another origin.
    """
    files = shipped_files(device)
    tables = [MeasuredTable.load(path, origin, force=force) for path in files]
    origins = {table.origin for table in tables}
    if len(origins) > 1:
        versions = ", ".join(
            f"{t.origin.torch} ({p.name})" for t, p in zip(tables, files, strict=True)
        )
        raise UserError(f"the tables of {device} are of several torch versions: {versions}")
    rows: dict[RowKey, Row] = {}
    for table, path in zip(tables, files, strict=True):
        for row in table:
            if row.key in rows and rows[row.key] != row:
                raise UserError(
                    f"{path.name} repeats a row of another table of {device}: {row.key}"
                )
            rows[row.key] = row
    notes = {path.stem: table.notes for table, path in zip(tables, files, strict=True)}
    counts = {n["multiprocessors"] for n in notes.values() if "multiprocessors" in n}
    shared = {"multiprocessors": counts.pop()} if len(counts) == 1 else {}
    options.setdefault("context_stride", CONTEXT_STRIDE if mode == "graph" else 1)
    return MeasuredTable(
        origins.pop(), rows.values(), mode=mode, notes={**notes, **shared}, **options
    )
