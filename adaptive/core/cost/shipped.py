"""Tables of measured times that come with the package, a directory a published device.

>>> from adaptive.core.cost import shipped_table
>>> shipped_table("h100-sxm").origin.device
'nvidia-h100-80gb-hbm3'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def shipped_table(device: str, mode: str = "graph", **options: Any) -> MeasuredTable:
    """All shipped rows of a device as one table without a file.

    Args:
        device: name in ``hardware.DEVICES``.
        mode, options: of ``MeasuredTable``.

    Raises:
        UserError: there is none.
    """
    tables = [MeasuredTable.load(path) for path in shipped_files(device)]
    origins = {table.origin for table in tables}
    assert len(origins) == 1, f"tables of {device} are of different origins: {origins}"
    rows = [row for table in tables for row in table]
    return MeasuredTable(origins.pop(), rows, mode=mode, notes=tables[0].notes, **options)
