"""Tensor parallelism: what one of several devices holds and computes, and what they exchange.

Blocks are cut as Megatron-LM cuts them (Shoeybi et al., arXiv 1909.08053, section 3; see
``Block.shard``). Attention, FFN and embedding end in an all-reduce of [tokens, hidden], linear
stand-ins and the head in an all-gather of their outputs, all in the dtype of activations.
Communication is taken not to overlap with computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from adaptive.core.cost.block import (
    Block,
    activation_dtype,
    checked_degree,
    dtype_bytes,
)
from adaptive.core.cost.interpolate import Estimate
from adaptive.core.cost.model import CostModel, decode_contexts
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Head, Linear
from adaptive.core.cost.stack import Composite
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class AllReduce:
    """Time of a collective by the bytes that a ring sends over each device's link.

    A ring all-reduce of n bytes over d devices is a reduce-scatter and an all-gather, each of which
    sends (d - 1) / d * n bytes from every device (Patarasuk and Yuan, JPDC 69(2), 2009). Switches
    that add up on the way (NVLink SHARP) can send less; then the bandwidth fitted to measured
    times is larger than that of the link.

    Libraries change protocol with the size of a message, so one line through all sizes is off by
    what ``error`` says. Where ``points`` were measured, times lie on the lines between neighbours.

    Attributes:
        bandwidth: bytes/s that one device sends, one way (``DeviceSpec.link_bandwidth``).
        latency: seconds of a collective of no bytes.
        points: measured (bytes sent by each device, seconds), ascending; times of less are those of
            the first, and beyond the last the line goes on at ``bandwidth``.
    """

    bandwidth: float
    latency: float = 0.0
    points: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or not 0 <= self.latency < float("inf"):
            raise UserError(
                f"all-reduce: bandwidth={self.bandwidth} must be above 0 and "
                f"latency={self.latency} not below"
            )

    def seconds(self, nbytes: float, degree: int) -> float:
        """Seconds of an all-reduce of ``nbytes`` over ``degree`` devices; one device needs none."""
        return self._passes(2, nbytes, degree)

    def gather_seconds(self, nbytes: float, degree: int) -> float:
        """Seconds of an all-gather whose result has ``nbytes``: half the way of an all-reduce."""
        return self._passes(1, nbytes, degree)

    def _passes(self, passes: int, nbytes: float, degree: int) -> float:
        if checked_degree(degree) == 1:
            return 0.0
        sent = passes * (degree - 1) / degree * nbytes
        if not self.points:
            return self._line(sent)
        sizes, seconds = np.transpose(self.points)
        beyond = max(sent - sizes[-1], 0.0) / self.bandwidth
        return float(np.interp(sent, sizes, seconds)) + beyond

    def _line(self, sent: float) -> float:
        return self.latency + sent / self.bandwidth

    @property
    def error(self) -> float:
        """Mean relative distance of the line from the measured points; 0 without any."""
        if not self.points:
            return 0.0
        return sum(abs(self._line(sent) / t - 1) for sent, t in self.points) / len(self.points)

    @classmethod
    def fit(cls, points: Sequence[tuple[float, float]], degree: int) -> AllReduce:
        """Measured all-reduces, and the line that is closest to them in relative terms.

        Args:
            points: (bytes, seconds) pairs of at least two sizes (``measure_all_reduce``); the
                median counts where a size was measured more than once.
            degree: devices that took part.

        Raises:
            UserError: fewer than two sizes, times that are not positive or do not grow with the
                size, or a single device.
        """
        if checked_degree(degree) == 1:
            raise UserError("an all-reduce is fitted to times of at least two devices")
        sizes, seconds = np.asarray(points, dtype=float).reshape(-1, 2).T
        if len(set(sizes)) < 2 or not (seconds > 0).all():
            raise UserError("an all-reduce is fitted to positive times of at least two sizes")
        sent = 2 * (degree - 1) / degree * sizes
        features = np.stack([np.ones_like(sent), sent], axis=1)
        scaled = features / seconds[:, None]
        latency, slope = np.linalg.lstsq(scaled, np.ones_like(seconds), rcond=None)[0]
        if latency < 0:  # noise of small sizes: the best line through the origin
            latency, slope = 0.0, scaled[:, 1].sum() / (scaled[:, 1] ** 2).sum()
        if slope <= 0:
            raise UserError("these all-reduces do not get slower with size: measure larger ones")
        curve = tuple((float(x), float(np.median(seconds[sent == x]))) for x in np.unique(sent))
        return cls(float(1 / slope), float(latency), curve)


@dataclass(frozen=True)
class TensorParallel:
    """A cost model of one of ``degree`` devices that share every block; itself a ``CostModel``.

    All resources are those of one device; communication adds to ``latency`` alone. A bound on the
    blocks stays one as far as the all-reduce's bandwidth is the link's and its latency 0.

    Attributes:
        inner: prices the shards; a table must hold times of them (``block.shard(degree)``).
        degree: devices.
        all_reduce: prices what they exchange.
    """

    inner: CostModel
    degree: int
    all_reduce: AllReduce

    def __post_init__(self) -> None:
        checked_degree(self.degree)

    @property
    def resources(self) -> tuple[str, ...]:
        return self.inner.resources

    @property
    def is_bound(self) -> bool:
        return self.inner.is_bound

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        """Cost of ``block``, given whole, on one device."""
        cost = self.inner.cost(block.shard(self.degree), workload, dtype)
        if "latency" in cost:
            batch, (steps, _, _) = workload.batch, decode_contexts(workload)
            seconds = steps * self.communication(block, "decode", batch, 0, dtype)
            if workload.prompt:
                seconds += self.communication(block, "prefill", batch, workload.prompt, dtype)
            cost["latency"] += seconds
        return cost

    def communication(
        self, block: Block, phase: Phase, batch: int, length: int, dtype: str
    ) -> float:
        """Seconds that one forward of ``block``, given whole, spends on communication."""
        if isinstance(block, Composite):
            members = block.members()
            return sum(self.communication(b, phase, batch, length, dtype) for b in members)
        tokens = block.computed_tokens(batch, length) if phase == "prefill" else batch
        token_bytes = tokens * dtype_bytes(activation_dtype(dtype))
        match block:
            case Attention() | FFN() | Embedding():
                return self.all_reduce.seconds(block.hidden * token_bytes, self.degree)
            case Linear():
                return self.all_reduce.gather_seconds(block.outputs * token_bytes, self.degree)
            case Head():
                return self.all_reduce.gather_seconds(block.vocab * token_bytes, self.degree)
        return 0.0

    def seconds(self, block: Block, phase: Phase, batch: int, length: int, dtype: str) -> Estimate:
        """Time of one forward of ``block``, given whole; see :func:`step_time`."""
        shard = step_time(self.inner, block.shard(self.degree), phase, batch, length, dtype)
        exchange = self.communication(block, phase, batch, length, dtype)
        return Estimate(shard.seconds + exchange, shard.how)


@runtime_checkable
class _Timed(Protocol):
    def seconds(
        self, block: Block, phase: Phase, batch: int, length: int, dtype: str
    ) -> Estimate: ...


@runtime_checkable
class _Phased(Protocol):
    def prefill(self, block: Block, batch: int, length: int, dtype: str) -> float: ...
    def decode(self, block: Block, batch: int, context: int, dtype: str) -> float: ...


def step_time(
    model: CostModel, block: Block, phase: Phase, batch: int, length: int, dtype: str
) -> Estimate:
    """Time of one forward: a prefill of [batch, length] tokens, or one decode step of ``batch``
    sequences with ``length`` cached tokens.

    Tables say how they know; models that compute (rooflines) say "measured", for ``is_bound`` tells
    what they are.

    Raises:
        UserError: the model has no times of single steps, or does not reach that far.
    """
    if isinstance(model, _Timed):
        return model.seconds(block, phase, batch, length, dtype)
    if isinstance(model, _Phased):
        call = model.prefill if phase == "prefill" else model.decode
        return Estimate(call(block, batch, length, dtype), "measured")
    raise UserError(
        f"{type(model).__name__} does not time single steps: give a measured table or a roofline"
    )
