"""Weights of a checkpoint by name, read from its safetensors files when they are asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from adaptive.core.errors import UserError


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


class Weights:
    """The tensors of some safetensors files; nothing is read before it is asked for.

    Args:
        files: no two hold the same name.

    Raises:
        UserError: a file is truncated or corrupt (here and in the methods).
    """

    def __init__(self, files: list[Path]):
        self._files: dict[str, Path] = {}
        self._handles = {}
        for file in files:
            with _readable(file):
                self._handles[file] = handle = safe_open(file, framework="pt")
                self._files |= dict.fromkeys(handle.keys(), file)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor; reads the header alone."""
        file = self._files[name]
        with _readable(file):
            return list(self._handles[file].get_slice(name).get_shape())

    def read(self, name: str) -> torch.Tensor:
        """A tensor, on the CPU."""
        file = self._files[name]
        with _readable(file):
            return self._handles[file].get_tensor(name)

    def check(self, wanted: Mapping[str, torch.Size]) -> None:
        """Refuses a checkpoint that lacks a weight or has one of another shape.

        Raises:
            UserError: names it.
        """
        missing = sorted(set(wanted) - set(self._files))
        if missing:
            raise UserError(
                f"parent: the safetensors files lack {len(missing)} weights, {missing[0]} among "
                "them; the checkpoint is incomplete"
            )
        for name, shape in wanted.items():
            if self.shape(name) != list(shape):
                raise UserError(
                    f"parent: {name} has shape {self.shape(name)}, but config.json asks for "
                    f"{list(shape)}"
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
