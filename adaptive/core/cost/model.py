"""Cost models: from a block and a workload to an amount of each resource.

A workload runs ``batch`` sequences: one prefill of ``prompt`` tokens, which yields the first new
token, then ``output - 1`` decode steps over a growing context. ``output=0`` is prefill alone: an
encoder, a detector, or scoring of text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adaptive.core.cost.block import Block, activation_dtype
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload

if TYPE_CHECKING:
    from adaptive.core.hardware.device import DeviceSpec


class CostModel(Protocol):
    """Prices blocks one by one; the price of a model is the sum over its parts.

    Attributes:
        resources: names of the resources that ``cost`` returns.
        is_bound: the numbers are lower bounds, not predictions; say so wherever they are shown.
    """

    @property
    def resources(self) -> tuple[str, ...]: ...
    @property
    def is_bound(self) -> bool: ...

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        """Cost of ``block`` over ``workload`` with weights in ``dtype``, by resource."""
        ...


def decode_contexts(workload: Workload) -> tuple[int, int, int]:
    """(steps, first, last): number of decode steps, cached tokens before the first and last."""
    steps = max(workload.output - 1, 0)
    return steps, workload.prompt, workload.prompt + max(steps - 1, 0)


def model_cost(
    block: Block, workload: Workload, dtype: str, model: CostModel
) -> dict[str, float]:
    """Cost of a whole stack: the sum of its parts, each distinct part priced once."""
    total = dict.fromkeys(model.resources, 0.0)
    for part, count in Counter(block.parts()).items():
        for resource, value in model.cost(part, workload, dtype).items():
            total[resource] += count * value
    return total


@dataclass(frozen=True)
class Analytic:
    """Counts that follow from shapes alone, exact under the conventions of ``cost.block``.

    ``params``; ``flops`` of the whole workload; ``memory``: weights plus the KV cache at the
    workload's full length, in bytes. Activations are a peak, not a sum: see
    ``Block.activation_bytes``.

    Attributes:
        kv_dtype: dtype of the KV cache; None is that of the activations (bf16 beside fp8, int8
            and int4 weights).
    """

    kv_dtype: str | None = None
    resources: tuple[str, ...] = ("params", "flops", "memory")
    is_bound: bool = False

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        steps, first, last = decode_contexts(workload)
        # Decode counts are affine in the context, so the mean of the ends is the mean of all.
        ends = sum(block.decode_flops(workload.batch, context) for context in (first, last))
        flops = block.prefill_flops(workload.batch, workload.prompt) + steps * ends / 2
        per_token = block.kv_bytes_per_token(self.kv_dtype or activation_dtype(dtype))
        cache = workload.batch * workload.seq_len * per_token
        return {
            "params": float(block.params()),
            "flops": float(flops),
            "memory": block.weight_bytes(dtype) + cache,
        }


@dataclass(frozen=True)
class Roofline:
    """A lower bound of latency: the slower of moving the bytes and doing the arithmetic.

    Launch overheads, imperfect kernels and unfused activations come on top; real blocks take
    1.2 to 3 times as long. Never print it as a prediction.

    Attributes:
        device: where; its published dense peaks and memory bandwidth are used.
        compute_dtype: dtype of the arithmetic; None is that of the weights. Weight-only
            quantisation computes in "bf16"; TF32 matrix products in "tf32".
        kv_dtype: as in ``Analytic``.
    """

    device: DeviceSpec
    compute_dtype: str | None = None
    kv_dtype: str | None = None
    resources: tuple[str, ...] = ("latency",)
    is_bound: bool = True

    def _rates(self, dtype: str) -> tuple[float, float]:
        compute = self.compute_dtype or dtype
        peak, bandwidth = self.device.peak_flops.get(compute), self.device.bandwidth
        if peak is None or bandwidth is None:
            known = ", ".join(self.device.peak_flops) or "nothing"
            raise UserError(
                f"no roofline for {compute} on {self.device.name}: its table has {known}; "
                "choose another compute_dtype or a measured table"
            )
        return peak, bandwidth

    def prefill(self, block: Block, batch: int, length: int, dtype: str) -> float:
        """Bound in seconds of one forward over [batch, length] tokens."""
        peak, bandwidth = self._rates(dtype)
        traffic = block.prefill_bytes(batch, length, dtype, self.kv_dtype)
        return max(block.prefill_flops(batch, length) / peak, traffic / bandwidth)

    def decode(self, block: Block, batch: int, context: int, dtype: str) -> float:
        """Bound in seconds of one decode step with ``context`` cached tokens a sequence."""
        peak, bandwidth = self._rates(dtype)
        traffic = block.decode_bytes(batch, context, dtype, self.kv_dtype)
        return max(block.decode_flops(batch, context) / peak, traffic / bandwidth)

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        batch, (steps, first, last) = workload.batch, decode_contexts(workload)
        seconds = self.prefill(block, batch, workload.prompt, dtype) if workload.prompt else 0.0
        if steps:
            peak, bandwidth = self._rates(dtype)
            flops = [block.decode_flops(batch, c) for c in (first, last)]
            traffic = [block.decode_bytes(batch, c, dtype, self.kv_dtype) for c in (first, last)]
            arithmetic = np.linspace(flops[0], flops[1], steps) / peak
            movement = np.linspace(traffic[0], traffic[1], steps) / bandwidth
            seconds += float(np.maximum(arithmetic, movement).sum())
        return {"latency": seconds}
