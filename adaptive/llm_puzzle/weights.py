"""Weights of a checkpoint by name, read from its safetensors files when they are asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from adaptive.core.errors import UserError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
}
"""Names of types in safetensors files to PyTorch's."""


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory.

    Raises:
        UserError: there are none, or the index names one that is missing.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"parent: {index} is no index of weights; copy or download it again"
            ) from None
        files = [directory / name for name in sorted(names)]
    else:
        files = [directory / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise UserError(
                f"parent: {directory} lacks {file.name}; put the model's safetensors weights there"
            )
    return files


@dataclass(frozen=True)
class Entry:
    """Where a tensor is, and what it is."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensor."""
        return prod(self.shape) * self.dtype.itemsize


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors of some safetensors files by name; each is read when it is asked for.

    Args:
        files: no two hold the same name.

    Raises:
        UserError: a file is truncated or corrupt (here and when a tensor is read).

    Attributes:
        entries: what is known of each tensor without reading it.
        foreign: names and types of tensors that are not floating-point ones, which are left out.
    """

    def __init__(self, files: Sequence[Path]):
        self.entries: dict[str, Entry] = {}
        self.foreign: dict[str, str] = {}
        self._handles = {}
        for file in files:
            with _readable(file):
                self._handles[file] = handle = safe_open(file, framework="pt")
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    part = handle.get_slice(name)
                    kind = part.get_dtype()
                    if kind not in DTYPES:  # a buffer of an older checkpoint, most likely
                        self.foreign[name] = kind
                        continue
                    self.entries[name] = Entry(file, tuple(part.get_shape()), DTYPES[kind])

    @staticmethod
    def of(directory: Path) -> Checkpoint:
        """The checkpoint in a model directory."""
        return Checkpoint(weight_files(directory))

    @property
    def dtype(self) -> torch.dtype:
        """Of the first weight, and so of all that this library writes."""
        return next(iter(self.entries.values())).dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        file = self.entries[name].file
        with _readable(file):
            return self._handles[file].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def check(self, wanted: Mapping[str, torch.Size]) -> None:
        """Refuses a checkpoint that lacks a weight or has one of another shape.

        Raises:
            UserError: names it.
        """
        for name in set(wanted) & set(self.foreign):
            raise UserError(
                f"parent: {name} is of type {self.foreign[name]}; convert the checkpoint to one of "
                f"{', '.join(DTYPES)}"
            )
        missing = sorted(set(wanted) - set(self.entries))
        if missing:
            raise UserError(
                f"parent: the safetensors files lack {len(missing)} weights, {missing[0]} among "
                "them; the checkpoint is incomplete"
            )
        for name, shape in wanted.items():
            if self.entries[name].shape != tuple(shape):
                raise UserError(
                    f"parent: {name} has shape {list(self.entries[name].shape)}, but config.json "
                    f"asks for {list(shape)}"
                )


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"parent: {file} is not a readable safetensors file ({error}); copy or download it "
            "again"
        ) from None
