"""Measured times as a cost model: a table with an origin, looked up or interpolated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core.cost.block import Block
from adaptive.core.cost.fit import Fit, Group, Samples, counts_along, fit
from adaptive.core.cost.interpolate import Estimate, Grid, How, worst
from adaptive.core.cost.model import decode_contexts
from adaptive.core.cost.rows import (
    Origin,
    Phase,
    Row,
    RowKey,
    Series,
    axis_names,
    counts_of,
    group_of,
    locate,
    shape_of,
)
from adaptive.core.cost.shapes import NoOp
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

if TYPE_CHECKING:
    from adaptive.core.cost.crossval import CrossValidation


class MeasuredTable:
    """Rows by key, and a cost model over them (see ``cost.model.CostModel``).

    Between measured points (in the batch, the length, and the axes that a block declares: FFN
    width, KV heads) a model fitted to all rows of the kind gives the shape (see ``cost.fit``) and
    is corrected to pass through the points; where the rows are too few for one, times are
    interpolated linearly. Outside the measured range they are refused, or, with ``extrapolate``,
    continued and marked in the ``how`` of the estimate. ``cross_validate`` says how far off that
    is, ``fits`` what the models are.

    Args:
        origin: where the times hold.
        rows: first rows.
        path: file that ``save`` writes.
        mode: the clock's mode whose rows ``cost`` uses.
        extrapolate: answer outside the measured range.
        context_stride: of an engine whose decode steps are CUDA graphs captured every so many
            tokens, which attend to as many slots as the next graph has: ``latency`` prices a step
            at the context that fills them. 1 attends to what is there.
        notes: further header entries, such as the date and commit of a published table;
            ``multiprocessors`` of the device, a whole number, lets fits see waves of tiles.
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
        context_stride: int = 1,
        notes: Mapping[str, Any] | None = None,
    ):
        if context_stride < 1:
            raise UserError(
                f"context_stride={context_stride} must be at least 1, the tokens between graphs"
            )
        self.origin, self.path = origin, Path(path) if path else None
        self.mode, self.extrapolate, self.notes = mode, extrapolate, dict(notes or {})
        self.context_stride = context_stride
        self._rows = {row.key: row for row in rows}
        self._forget()

    @classmethod
    def load(
        cls, path: str | Path, origin: Origin | None = None, *, force: bool = False, **options: Any
    ) -> MeasuredTable:
        """Reads a table.

        Args:
            path: the file.
            origin: what the table must have been measured on; None accepts any.
            force: use a table of another origin all the same.
            options: ``mode``, ``extrapolate`` and ``context_stride``.

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
        self._forget()

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
        times, hows = self._times(block, phase, batch, [length], dtype)
        return Estimate(float(times[0]), hows[0])

    def latency(self, block: Block | str, workload: Workload, dtype: str) -> Estimate:
        """Seconds of a whole workload, prefill and all decode steps, and the worst origin."""
        asked = (block, workload, dtype, self.mode, self.extrapolate, self.context_stride)
        if asked not in self._latencies:
            self._latencies[asked] = self._latency(block, workload, dtype)
        return self._latencies[asked]

    def _latency(self, block: Block | str, workload: Workload, dtype: str) -> Estimate:
        total, hows = 0.0, ["measured"]
        if workload.prompt:
            prefill = self.seconds(block, "prefill", workload.batch, workload.prompt, dtype)
            total, hows = prefill.seconds, [prefill.how]
        steps, first, last = decode_contexts(workload)
        if steps:
            slots = -(-np.arange(first + 1, last + 2) // self.context_stride) * self.context_stride
            lengths, repeats = np.unique(slots - 1, return_counts=True)
            times, decode = self._times(block, "decode", workload.batch, lengths.tolist(), dtype)
            total += float(times @ repeats)
            hows += decode
        return Estimate(total, worst(*hows))  # type: ignore[arg-type]

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        """Latency in seconds of ``block`` over ``workload``."""
        return {"latency": self.latency(block, workload, dtype).seconds}

    def cross_validate(self) -> CrossValidation:
        """How far off interpolation is, by leaving out measured points (see ``cost.crossval``)."""
        from adaptive.core.cost.crossval import cross_validate

        return cross_validate(self.series(), self._samples())

    def fits(self) -> list[Fit]:
        """The fitted models, sorted by what they cover; too few rows of a kind have none."""
        found = (self._fit(group) for group in sorted(self._samples()))
        return [model for model in found if model is not None]

    def series(self) -> Mapping[Any, Series]:
        """The rows as grids of points."""
        if self._series is None:
            self._series = {}
            for row in self._rows.values():
                name, point = locate(row.key)
                series = self._series.setdefault(name, Series(axis_names(row.key.block), {}))
                series.rows.setdefault(point, []).append(row)
        return self._series

    def _forget(self) -> None:
        """Drops what was derived from the rows."""
        self._series: dict[Any, Series] | None = None
        self._groups: dict[Group, Samples] | None = None
        self._fits: dict[Group, Fit | None] = {}
        self._grids: dict[Any, Grid] = {}
        self._latencies: dict[Any, Estimate] = {}

    def _samples(self) -> Mapping[Group, Samples]:
        """The rows that a shape describes, by what one fit covers."""
        if self._groups is None:
            found: dict[Group, list[Row]] = {}
            for row in self._rows.values():
                if group := group_of(row.key):
                    found.setdefault(group, []).append(row)
            self._groups = {
                group: Samples(
                    tuple(row.key for row in rows),
                    np.stack([counts_of(row.key, self._multiprocessors) for row in rows]),
                    np.array([row.seconds for row in rows]),
                )
                for group, rows in found.items()
            }
        return self._groups

    @property
    def _multiprocessors(self) -> int:
        return int(self.notes.get("multiprocessors", 0))

    def _fit(self, group: Group | None) -> Fit | None:
        if group is None:
            return None
        if group not in self._fits:
            samples = self._samples().get(group)
            self._fits[group] = (
                fit(group, samples.counts_RT, samples.seconds_R) if samples else None
            )
        return self._fits[group]

    def _grid(self, name: Any, model: Fit | None) -> Grid:
        if name not in self._grids:
            series = self.series()[name]
            modelled = None
            if model:
                modelled = {
                    point: float(model.seconds(counts_of(rows[0].key, self._multiprocessors)))
                    for point, rows in series.rows.items()
                }
            self._grids[name] = Grid(series.points, modelled, series.logs)
        return self._grids[name]

    def _times(
        self, block: Block | str, phase: Phase, batch: int, lengths: list[int], dtype: str
    ) -> tuple[np.ndarray, list[How]]:
        """Times [Q] of calls at Q lengths, ascending, and their origins; UserError as ``seconds``.

        Many lengths are of decode steps: the fitted model is affine in the context.
        """
        if isinstance(block, NoOp):
            return np.zeros(len(lengths)), ["measured"] * len(lengths)
        key = RowKey.of(block, phase, batch, lengths[0], dtype, self.mode)
        name, point = locate(key)
        series = self.series().get(name)
        if series is None:
            raise self._refusal(key, phase, batch, lengths[0])
        spans = series.names[-1] == "length"
        at = lengths if spans else [key.length]
        points = [(*point[:-1], float(length)) for length in lengths] if spans else [point]
        shape, model = shape_of(key.block), self._fit(group_of(key))
        modelled = None
        if model and shape is not None:
            amounts = counts_along(shape, key.phase, key.batch, at, dtype, self._multiprocessors)
            modelled = model.seconds(amounts)
        times, hows = self._grid(name, model).at(points, modelled, extrapolate=self.extrapolate)
        if np.isnan(times).any():
            raise self._refusal(key, phase, batch, lengths[int(np.isnan(times).argmax())])
        repeats = len(lengths) // len(at)
        return np.repeat(times, repeats), hows * repeats

    def _refusal(self, key: RowKey, phase: Phase, batch: int, length: int) -> UserError:
        series = self.series().get(locate(key)[0], Series((), {}))
        axes = [sorted(set(values)) for values in zip(*series.rows, strict=True)]
        sizes = [
            f"{name} {', '.join(f'{x:g}' for x in values)}"
            for name, values in zip(series.names, axes, strict=True)
        ]
        # A device without memory for all of them leaves holes at the largest.
        holes = math.prod(len(values) for values in axes) > len(series.rows) > 0
        return UserError(
            f"no {self.mode} {key.dtype} time of {key.block} {phase} at batch {batch}, length "
            f"{length}: measured are {'; '.join(sizes) or 'no sizes of it'}"
            f"{', but not all of their combinations' if holes else ''}; profile it, or set "
            "extrapolate=true"
        )
