"""Made-up problems with the structure of real ones, for tests and benchmarks."""

from __future__ import annotations

import numpy as np

from adaptive.core.choice import ChoiceProblem
from adaptive.core.workload import Workload

__all__ = ["block_library"]

KV_HEADS = (8, 4, 2, 1)
FFN_WIDTHS = (1.0, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1)
RESOURCES_OF_BLOCKS = ("latency", "memory", "params", "flops")


def block_library(
    layers: int = 80,
    limits: int = 2,
    *,
    ffn_widths: tuple[float, ...] = FFN_WIDTHS,
    seed: int = 0,
) -> ChoiceProblem:
    """A block library like Puzzle's for a 70B parent, with random losses.

    Each layer chooses attention from {8, 4, 2, 1 KV heads, linear, no-op} times FFN from {widths,
    linear, no-op}; 54 options with the widths of the paper, the parent first. Losses grow as blocks
    get cheaper, differently in each layer (first and last layers are the most sensitive), and carry
    the noise of distillation, so some ladders are not monotone. Costs are those of a 70B layer in
    fp8 on an H100: parameters and FLOPs exact, memory with the KV cache, latency of one decode step
    as fixed + bytes + FLOPs with 2 % of measurement noise. They are equal in all layers, as they
    are for a real model, which makes for many ties and so for hard instances.

    Args:
        layers: number of groups.
        limits: how many of latency, memory, params and flops are priced, 1 to 4.
        ffn_widths: shares of the parent's intermediate width.
        seed: of the losses and of the measurement noise.
    """
    rng = np.random.default_rng(seed)
    hidden, intermediate, head_dim, heads = 8192, 28672, 128, 64
    batch, length = 64, 2048
    # One entry an attention variant: parameters, FLOPs a token, KV bytes a token, share kept.
    attention = [
        (
            hidden * head_dim * (2 * heads + 2 * kv),
            2 * hidden * head_dim * (2 * heads + 2 * kv) + 4 * heads * head_dim * length,
            2 * kv * head_dim,
            f"kv{kv}",
        )
        for kv in KV_HEADS
    ]
    attention += [(hidden**2, 2 * hidden**2, 0, "linear"), (0, 0, 0, "no-op")]
    ffn = [
        (3 * hidden * width, 6 * hidden * width, 0, f"ffn{share:.0%}")
        for share, width in (
            (share, round(share * intermediate / 256) * 256) for share in ffn_widths
        )
    ]
    ffn += [(hidden**2, 2 * hidden**2, 0, "linear"), (0, 0, 0, "no-op")]

    params_AF = _grid([a[0] for a in attention], [f[0] for f in ffn])
    flops_AF = _grid([a[1] for a in attention], [f[1] for f in ffn]) * batch
    cache_AF = _grid([a[2] for a in attention], [0.0] * len(ffn)) * batch * length
    seconds_A = [_seconds(rng, a[0] + a[2] * batch * length, a[1] * batch) for a in attention]
    seconds_F = [_seconds(rng, f[0], f[1] * batch) for f in ffn]
    cost_AF = {
        "latency": _grid(seconds_A, seconds_F),
        "memory": params_AF + cache_AF,
        "params": params_AF,
        "flops": flops_AF,
    }

    depth_L = np.linspace(-1, 1, layers)
    sensitivity_L2 = (0.02 + 0.1 * np.abs(depth_L) ** 6)[:, None] * rng.lognormal(
        0, 0.6, (layers, 2)
    )
    loss_LA = sensitivity_L2[:, :1] * _damage(rng, layers, [a[0] for a in attention])
    loss_LF = sensitivity_L2[:, 1:] * _damage(rng, layers, [f[0] for f in ffn])
    # Scores of joint blocks lie below the sum of their parts (median ratio 0.756 on real scores).
    joint_LAF = (
        0.8
        * (loss_LA[:, :, None] + loss_LF[:, None])
        * rng.lognormal(0, 0.05, (layers, len(attention), len(ffn)))
    )
    joint_LAF[:, 0, 0] = 0.0
    shape = (layers, len(attention) * len(ffn))
    return ChoiceProblem(
        joint_LAF.reshape(shape),
        {
            name: np.broadcast_to(cost_AF[name].ravel(), shape)
            for name in RESOURCES_OF_BLOCKS[:limits]
        },
        fixed={"memory": 2 * 128256 * hidden} if limits > 1 else None,
        groups=[f"layer {i}" for i in range(layers)],
        options=[f"{a[3]} / {f[3]}" for a in attention for f in ffn],
        workload=Workload(batch, length // 2, length // 2),
    )


def _grid(attention: list, ffn: list) -> np.ndarray:
    return np.asarray(attention, dtype=float)[:, None] + np.asarray(ffn, dtype=float)[None]


def _seconds(rng: np.random.Generator, bytes_moved: float, flops: float) -> float:
    """Decode time of a block in fp8, after the fit to NVIDIA's table; measured within 2 %."""
    if bytes_moved == 0:
        return 0.0
    return (5e-6 + bytes_moved / 3.35e12 + flops / 1.979e15) * rng.normal(1, 0.02)


def _damage(rng: np.random.Generator, layers: int, params: list[float]) -> np.ndarray:
    """Relative loss of the variants of a ladder, 0 for the parent, noisy, not always monotone."""
    share_V = 1 - np.asarray(params, dtype=float) / params[0]
    power_L1 = rng.uniform(1.2, 3.0, (layers, 1))
    return share_V**power_L1 * rng.lognormal(0, 0.25, (layers, len(params)))
