"""Measured times as a cost model: a table with an origin, looked up or interpolated."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from adaptive.core.cost.block import Block, parse_block
from adaptive.core.cost.interpolate import Estimate, Point, interpolate, worst
from adaptive.core.cost.model import decode_contexts
from adaptive.core.cost.shapes import NoOp
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")


@dataclass(frozen=True)
class Origin:
    """Where a table's times hold: other hardware, torch or thread counts have other times.

    Attributes:
        device: name of the hardware (``hardware.device_name``).
        torch: torch version.
        threads: CPU threads; 0 on GPUs.
    """

    device: str
    torch: str
    threads: int

    @classmethod
    def here(cls, device: str = "cpu", threads: int = 1) -> Origin:
        """The origin of times measured now on a torch device."""
        import torch

        from adaptive.core.hardware.detect import device_name

        return cls(device_name(device), torch.__version__, threads if device == "cpu" else 0)


class RowKey(NamedTuple):
    """What a row is about. ``length`` is the prompt of a prefill, the cached context of a decode.

    ``block`` is ``Block.key()``, or any name for something that no shape describes. What depends on
    the number of tokens alone is filed as a prefill of so many sequences of one token: ``of`` makes
    the key under which a row is found.
    """

    block: str
    phase: Phase
    batch: int
    length: int
    dtype: str
    mode: str

    @classmethod
    def of(
        cls, block: Block | str, phase: Phase, batch: int, length: int, dtype: str, mode: str
    ) -> RowKey:
        """The key of a block's (or a named thing's) time."""
        shape = block if isinstance(block, Block) else _parse(block)
        key = block.key() if isinstance(block, Block) else block
        if shape is not None and shape.pointwise:
            batch = shape.computed_tokens(batch, length) if phase == "prefill" else batch
            phase, length = "prefill", 1
        return cls(key, phase, batch, length, dtype, mode)


@dataclass(frozen=True)
class Row:
    """A measured time.

    Attributes:
        key: what was measured.
        seconds: median time of one call.
        spread: half the interquartile range, relative to the median.
        repeats: number of repeats behind the median.
    """

    key: RowKey
    seconds: float
    spread: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.seconds < float("inf")) or not self.spread >= 0:
            raise UserError(
                f"{self.key.block} {self.key.phase}: seconds={self.seconds}, spread={self.spread} "
                "is no measurement; times are positive, spreads not negative: measure it again"
            )
        if self.key.phase not in PHASES:
            raise UserError(f"unknown phase {self.key.phase!r}, choose one of {', '.join(PHASES)}")


class MeasuredTable:
    """Rows by key, and a cost model over them (see ``cost.model.CostModel``).

    Between measured points times are interpolated linearly: in the batch, the length, and the
    axes that a block declares (FFN width, KV heads). Outside the measured range they are refused,
    or, with ``extrapolate``, continued and marked in the ``how`` of the estimate.

    Args:
        origin: where the times hold.
        rows: first rows.
        path: file that ``save`` writes.
        mode: the clock's mode whose rows ``cost`` uses.
        extrapolate: answer outside the measured range.
        notes: further header entries, such as the date and commit of a published table.
    """

    resources: tuple[str, ...] = ("latency",)
    is_bound = False

    def __init__(
        self,
        origin: Origin,
        rows: Iterable[Row] = (),
        *,
        path: str | Path | None = None,
        mode: str = "eager",
        extrapolate: bool = False,
        notes: Mapping[str, Any] | None = None,
    ):
        self.origin, self.path = origin, Path(path) if path else None
        self.mode, self.extrapolate, self.notes = mode, extrapolate, dict(notes or {})
        self._rows = {row.key: row for row in rows}
        self._series: dict[Any, dict[Point, float]] | None = None

    @classmethod
    def load(
        cls, path: str | Path, origin: Origin | None = None, *, force: bool = False, **options: Any
    ) -> MeasuredTable:
        """Reads a table.

        Args:
            path: the file.
            origin: what the table must have been measured on; None accepts any.
            force: use a table of another origin all the same.
            options: ``mode`` and ``extrapolate``.

        Raises:
            UserError: the file is missing, damaged, or of another origin.
        """
        from adaptive.core.cost.table_file import read_table

        found, rows, notes = read_table(Path(path))
        if origin is not None and not force:
            for field in fields(Origin):
                theirs, ours = getattr(found, field.name), getattr(origin, field.name)
                if theirs != ours:
                    raise UserError(
                        f"{path} was measured with {field.name}={theirs!r}, here it is {ours!r}: "
                        "measure here, or force its use if you know that the times carry over"
                    )
        return cls(found, rows, path=path, notes=notes, **options)

    @classmethod
    def open(cls, path: str | Path, origin: Origin, **options: Any) -> MeasuredTable:
        """Loads the table at ``path`` if there is one, else starts one that will be saved there."""
        if Path(path).exists():
            return cls.load(path, origin, **options)
        return cls(origin, path=path, **options)

    def save(self, path: str | Path | None = None) -> None:
        """Writes the table atomically to ``path`` (default: where it came from)."""
        from adaptive.core.cost.table_file import write_table

        target = Path(path) if path else self.path
        if target is None:
            raise UserError("the table has no file yet, give save() a path")
        write_table(target, self.origin, list(self), self.notes)

    def add(self, row: Row) -> None:
        """Adds a row, or replaces the one with the same key."""
        self._rows[row.key] = row
        self._series = None

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __getitem__(self, key: RowKey) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[Row]:
        """Rows in the order of their keys."""
        return iter(sorted(self._rows.values(), key=lambda row: row.key))

    def __len__(self) -> int:
        return len(self._rows)

    def seconds(
        self, block: Block | str, phase: Phase, batch: int, length: int, dtype: str
    ) -> Estimate:
        """Time of one call, measured or interpolated (see the class).

        Raises:
            UserError: the table does not reach that far.
        """
        if isinstance(block, NoOp):
            return Estimate(0.0, "measured")
        wanted = RowKey.of(block, phase, batch, length, dtype, self.mode)
        key = wanted.block
        series, point = _locate(wanted)
        points = self._index().get(series, {})
        found = interpolate(points, point, extrapolate=self.extrapolate)
        if found is None:
            sizes = [
                f"{name} {', '.join(f'{x:g}' for x in sorted({point[i] for point in points}))}"
                for i, name in enumerate(_axis_names(key))
            ]
            measured = "; ".join(sizes) if points else "no sizes of it"
            raise UserError(
                f"no {self.mode} {dtype} time of {key} {phase} at batch {batch}, length {length}: "
                f"measured are {measured}; profile it, or set extrapolate=true"
            )
        return found

    def latency(self, block: Block | str, workload: Workload, dtype: str) -> Estimate:
        """Seconds of a whole workload, prefill and all decode steps, and the worst origin."""
        total, hows = 0.0, ["measured"]
        if workload.prompt:
            prefill = self.seconds(block, "prefill", workload.batch, workload.prompt, dtype)
            total, hows = prefill.seconds, [prefill.how]
        steps, first, last = decode_contexts(workload)
        if steps:
            # Times are linear between measured lengths: those and the ends determine the sum.
            inner = {row.key.length for row in self._rows.values() if row.key.phase == "decode"}
            knots = sorted({first, last} | {n for n in inner if first < n < last})
            decode = [self.seconds(block, "decode", workload.batch, n, dtype) for n in knots]
            contexts = np.arange(first, last + 1)
            total += float(np.interp(contexts, knots, [e.seconds for e in decode]).sum())
            hows += [e.how for e in decode]
        return Estimate(total, worst(*hows))  # type: ignore[arg-type]

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        """Latency in seconds of ``block`` over ``workload``."""
        return {"latency": self.latency(block, workload, dtype).seconds}

    def _index(self) -> dict[Any, dict[Point, float]]:
        """Rows as one grid of points a series; rows that fall together are averaged."""
        if self._series is None:
            grids: dict[Any, dict[Point, list[float]]] = {}
            for row in self._rows.values():
                series, point = _locate(row.key)
                grids.setdefault(series, {}).setdefault(point, []).append(row.seconds)
            self._series = {
                series: {point: sum(v) / len(v) for point, v in grid.items()}
                for series, grid in grids.items()
            }
        return self._series


@functools.lru_cache(maxsize=4096)
def _parse(key: str) -> Block | None:
    """The block behind a row's key, or None where the key is just a name."""
    try:
        return parse_block(key)
    except UserError:
        return None


def _axis_names(key: str) -> tuple[str, ...]:
    block = _parse(key)
    if block is None:
        return "batch", "length"
    return (*block.axes, "batch", *(() if block.pointwise else ("length",)))


def _locate(key: RowKey) -> tuple[Any, Point]:
    """(series, point): which grid a row belongs to, and where in it."""
    block = _parse(key.block)
    names = _axis_names(key.block)
    values = {"batch": key.batch, "length": key.length}
    family: Any = key.block
    if block is not None:
        values |= {name: getattr(block, name) for name in block.axes}
        family = replace(block, **dict.fromkeys(block.axes, 1))  # type: ignore[type-var]
    return (family, key.phase, key.dtype, key.mode), tuple(float(values[n]) for n in names)
