"""Where the activations of all calibration rows wait: on the device, in host memory or on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import torch

from adaptive.core.run.atomic import TEMPORARY

T = TypeVar("T")

CGROUP = Path("/sys/fs/cgroup")
PLACES = ("device", "host", "disk")
SHARES = {"device": 0.3, "host": 0.5, "disk": 0.5}
"""Of what is free there that activations may take."""


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device; on a CPU, those that programs can have."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        free = 1024.0 * int(sizes["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):  # not Linux
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(free, _container_memory())


def _container_memory() -> float:
    """Bytes that a container still allows (cgroup version 2); infinite outside of one."""
    try:
        limit, used = (
            int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # none, or "max"
        return float("inf")
    return float(max(0, limit - used))


@dataclass(frozen=True)
class Store:
    """Makes the tensors that hold activations of all rows.

    Attributes:
        place: one of ``PLACES``.
        device: of the computation.
        directory: of files that vanish with the tensors in them; None takes the system's.
    """

    place: str
    device: torch.device
    directory: Path | None = None

    @staticmethod
    def choose(
        place: str, nbytes: float, device: torch.device, directory: Path | None = None
    ) -> Store:
        """The nearest place with room.

        Args:
            place: one of ``PLACES``, or ``"auto"``.
            nbytes: of everything that has to be kept at the same time.
            device: of the computation.
            directory: see the class.
        """
        if place == "auto":
            place = "disk"
            # Processes on one host choose at the same time; pinned blocks are powers of two.
            beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            pinned = 2.0 if device.type == "cuda" else 1.0
            if pinned * nbytes * beside <= SHARES["host"] * free_memory(torch.device("cpu")):
                place = "host"
            if nbytes <= SHARES["device"] * free_memory(device):
                place = "device"
        return Store(place, device, directory)

    def room(self) -> float:
        """Bytes that it may take beside what it has taken."""
        if self.place == "disk":
            free = float(shutil.disk_usage(self.directory or tempfile.gettempdir()).free)
        else:
            free = free_memory(self.device if self.place == "device" else torch.device("cpu"))
        return SHARES[self.place] * free

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor to be filled."""
        if self.place == "device":
            return torch.empty(*shape, dtype=dtype, device=self.device)
        if self.place == "host":
            pinned = self.device.type == "cuda"
            return torch.empty(*shape, dtype=dtype, pin_memory=pinned)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=self.directory)
        try:
            # Without this a full disk would end the process at some write, without a word.
            os.posix_fallocate(handle, 0, max(1, prod(shape) * dtype.itemsize))
            flat = torch.from_file(name, shared=True, size=prod(shape), dtype=dtype)
        finally:
            # The mapping keeps the space; whatever ends the process gives it back.
            os.unlink(name)
            os.close(handle)
        return flat.view(*shape)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each made by a thread while the one before it is in use."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as reader:
        coming = reader.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, source, end)
            yield item  # type: ignore[misc]
