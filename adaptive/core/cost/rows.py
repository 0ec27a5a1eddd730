"""Rows of measured times: what they are about, and the grids that they lie on."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from adaptive.core.cost.block import Block, parse_block
from adaptive.core.cost.fit import Group, counts
from adaptive.core.cost.interpolate import Point
from adaptive.core.errors import UserError

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")

CONTEXT_STRIDE = 128
"""Tokens of context between the decode graphs of an engine on a GPU: within a stride a step attends
to all of its slots and masks those that are still empty."""


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
        shape = block if isinstance(block, Block) else shape_of(block)
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


@dataclass(frozen=True)
class Series:
    """The rows that lie on one grid.

    Attributes:
        names: axes of the grid: those of the block, the batch (tokens, of pointwise blocks), and
            the length where it matters.
        rows: by point; rows that fall together are averaged.
    """

    names: tuple[str, ...]
    rows: dict[Point, list[Row]]

    @property
    def points(self) -> dict[Point, float]:
        """Seconds by point."""
        return {p: sum(r.seconds for r in rows) / len(rows) for p, rows in self.rows.items()}

    @property
    def logs(self) -> tuple[int, ...]:
        """Positions of the axes in whose logarithm a fit is corrected.

        Leave-one-out errors on 686 synthetic rows of an H100-like device with 1 % noise, as shipped
        tables are laid out (logarithm against the plain coordinate): 1.00 and 1.02 % where the fit
        is exact, 1.85 and 1.92 % with soft knees and waves that it does not know; for the widths
        and KV heads there was nothing between them (1.83 %). Without a fit: 1.89 and 2.36 %.
        """
        return tuple(i for i, name in enumerate(self.names) if name in ("batch", "length"))


@functools.lru_cache(maxsize=4096)
def shape_of(key: str) -> Block | None:
    """The block behind a row's key, or None where the key is just a name."""
    try:
        return parse_block(key)
    except UserError:
        return None


def axis_names(key: str) -> tuple[str, ...]:
    """Axes of the grid of a row with this ``block`` text."""
    block = shape_of(key)
    if block is None:
        return "batch", "length"
    return (*block.axes, "batch", *(() if block.pointwise else ("length",)))


def locate(key: RowKey) -> tuple[Any, Point]:
    """(series, point): which grid a row belongs to, and where in it."""
    block = shape_of(key.block)
    names = axis_names(key.block)
    values = {"batch": key.batch, "length": key.length}
    family: Any = key.block
    if block is not None:
        values |= {name: getattr(block, name) for name in block.axes}
        family = replace(block, **dict.fromkeys(block.axes, 1))  # type: ignore[type-var]
    return (family, key.phase, key.dtype, key.mode), tuple(float(values[n]) for n in names)


def group_of(key: RowKey) -> Group | None:
    """What one fit covers; None for names that no shape describes."""
    block = shape_of(key.block)
    return None if block is None else Group(block.kind, key.phase, key.dtype, key.mode)


def counts_of(key: RowKey, multiprocessors: int) -> np.ndarray:
    """``fit.counts`` of a row that a shape describes."""
    block = shape_of(key.block)
    assert block is not None
    return counts(block, key.phase, key.batch, key.length, key.dtype, multiprocessors)
