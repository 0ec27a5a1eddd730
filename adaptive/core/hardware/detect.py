"""The device at hand: published numbers for a known GPU, measured ones for the CPU."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import time
import warnings
from collections.abc import Callable

from adaptive.core.cost.roofline import DeviceSpec
from adaptive.core.errors import UserError
from adaptive.core.hardware.device import DEVICES, match_device
from adaptive.core.run.environment import cpu_name, resolve_device


def detect(device: str = "auto") -> DeviceSpec:
    """The spec of a device.

    Args:
        device: "auto" (the GPU if torch sees one, else the CPU), "cpu", "cuda" (or "cuda:1"), or
            the name of a published device, which need not be present.

    Raises:
        UserError: unknown name, or no such CUDA device.
    """
    if device in DEVICES:
        return DEVICES[device]
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise UserError(f"{DEVICES.unknown(device)}, or one of auto, cpu, cuda")
    torch_device = resolve_device(device)
    return measure_cpu() if torch_device == "cpu" else _detect_cuda(torch_device)


def _detect_cuda(device: str) -> DeviceSpec:
    import torch

    properties = torch.cuda.get_device_properties(device)
    memory = float(properties.total_memory)
    if spec := match_device(properties.name):
        return dataclasses.replace(spec, memory_bytes=memory)
    warnings.warn(
        f"no published numbers for {properties.name!r}: rooflines are not available on it, "
        "measured tables are",
        stacklevel=3,
    )
    return DeviceSpec(properties.name, "cuda", memory, None, {}, "the driver")


def device_name(device: str) -> str:
    """A file-name friendly name of the hardware behind a torch device; measures nothing."""
    if device == "cpu":
        name = f"{cpu_name()} {_cores()} cores"
    elif not device.startswith("cuda"):
        name = f"{cpu_name()} {device}"  # of the same chip, such as Apple's mps
    else:
        import torch

        name = torch.cuda.get_device_name(device)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def measure_cpu() -> DeviceSpec:
    """Measures the CPU on the spot (under a second), once a process, with torch's threads.

    Peaks are the best of several matrix products of 768 x 768; the bandwidth is the best of
    several copies between buffers of 64 MiB, read and write counted. Best, not median: they feed
    bounds. Weights that stay in a cache can be read faster than this bandwidth says.
    """
    import torch

    size = 768
    peaks = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
        peaks[name] = 2 * size**3 / _best(lambda a=a, b=b: a @ b)
    source, target = (torch.ones(2**24) for _ in range(2))
    bandwidth = 2 * source.nbytes / _best(lambda: target.copy_(source))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    note = f"measured with {torch.get_num_threads()} threads"
    name = device_name("cpu")
    return DeviceSpec(name, "cpu", memory, bandwidth, peaks, note, cores=_cores())


def _best(call: Callable[[], object], seconds: float = 0.15) -> float:
    """Shortest of the calls that fit in ``seconds``, of at least three."""
    best, end, done = float("inf"), time.perf_counter() + seconds, 0
    while done < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, done = min(best, time.perf_counter() - start), done + 1
    return best
