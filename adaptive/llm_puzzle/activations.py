"""Where the activations of all calibration rows wait: on the device, in host memory or on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

PLACES = ("device", "host", "disk")
SHARES = {"device": 0.3, "host": 0.5}
"""Of the free memory that activations may take when the place is chosen for them."""


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device; on a CPU, those that programs can have."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = dict(line.split(":") for line in file)
        return 1024.0 * int(sizes["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):  # not Linux
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


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
            if nbytes <= SHARES["host"] * free_memory(torch.device("cpu")):
                place = "host"
            if nbytes <= SHARES["device"] * free_memory(device):
                place = "device"
        return Store(place, device, directory)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor to be filled."""
        if self.place == "device":
            return torch.empty(*shape, dtype=dtype, device=self.device)
        if self.place == "host":
            pinned = self.device.type == "cuda"
            return torch.empty(*shape, dtype=dtype, pin_memory=pinned)
        handle, name = tempfile.mkstemp(prefix="activations-", dir=self.directory)
        os.close(handle)
        try:
            flat = torch.from_file(name, shared=True, size=prod(shape), dtype=dtype)
        finally:
            # The mapping keeps the space; whatever ends the process gives it back.
            os.unlink(name)
        return flat.view(*shape)


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each made by a thread while the one before it is in use."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as reader:
        coming = reader.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, source, end)
            yield item  # type: ignore[misc]
