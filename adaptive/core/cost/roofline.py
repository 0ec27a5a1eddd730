"""A bound of latency from a device's memory bandwidth and peak arithmetic (the roofline model).

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from adaptive.core.cost.block import Block
from adaptive.core.cost.model import affine_parts
from adaptive.core.errors import UserError
from adaptive.core.workload import Workload


@dataclass(frozen=True)
class DeviceSpec:
    """What a roofline and a memory budget need to know of a device.

    Attributes:
        name: short name, the key in ``DEVICES`` for published devices.
        kind: "cuda" (ROCm answers to it too) or "cpu".
        memory_bytes: capacity in bytes; None where unknown.
        bandwidth: memory bandwidth in bytes/s; None where unknown.
        peak_flops: dense peak in FLOP/s (2 x MAC/s) by dtype; a missing dtype has no fast path.
        source: where the numbers come from.
        markers: words that all occur in the driver's name for the device.
        cores: CPU cores that the process may use; 0 for GPUs.
        link_bandwidth: bytes/s that one device sends to its peers, one way, over the links that
            multi-GPU machines of it have (NVLink, Infinity Fabric, else PCIe); None where unknown.
    """

    name: str
    kind: str
    memory_bytes: float | None
    bandwidth: float | None
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    markers: tuple[str, ...] = ()
    cores: int = 0
    link_bandwidth: float | None = None


@dataclass(frozen=True)
class Roofline:
    """A lower bound of latency: the slower of moving the bytes and doing the arithmetic.

    Launch overheads, imperfect kernels and unfused activations come on top, so it is never printed
    as a prediction. All traffic is taken to reach the device's memory: a block whose weights stay
    in the last cache between calls can beat the bandwidth term.

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
        batch = workload.batch
        seconds = self.prefill(block, batch, workload.prompt, dtype) if workload.prompt else 0.0
        for first, last in affine_parts(block, workload):
            peak, bandwidth = self._rates(dtype)
            steps = last - first + 1
            flops = [block.decode_flops(batch, c) for c in (first, last)]
            traffic = [block.decode_bytes(batch, c, dtype, self.kv_dtype) for c in (first, last)]
            arithmetic = np.linspace(flops[0], flops[1], steps) / peak
            movement = np.linspace(traffic[0], traffic[1], steps) / bandwidth
            seconds += float(np.maximum(arithmetic, movement).sum())
        return {"latency": seconds}
