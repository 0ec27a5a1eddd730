"""Weights of a model directory, read one tensor at a time and written in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from adaptive.llm_puzzle.parent import weight_files

SHARD_BYTES = 5_000_000_000
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Names of types in safetensors files to PyTorch's."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor is, and what it is."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Weights:
    """The tensors of a directory by name; sizes are known without reading them."""

    def __init__(self, directory: Path):
        self.entries: dict[str, Entry] = {}
        for file in weight_files(directory):
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    part = handle.get_slice(name)
                    dtype = DTYPES[part.get_dtype()]
                    self.entries[name] = Entry(file, tuple(part.get_shape()), dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; all have the same."""
        return next(iter(self.entries.values())).dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        with safe_open(self.entries[name].file, framework="pt") as handle:
            return handle.get_tensor(name)

    def shards(self, limit: int) -> Iterator[list[str]]:
        """Names in the order of layers, in lists of at most ``limit`` bytes (or one tensor)."""
        shard: list[str] = []
        size = 0
        for name in sorted(self.entries, key=_natural):
            nbytes = self.entries[name].nbytes
            if shard and size + nbytes > limit:
                yield shard
                shard, size = [], 0
            shard.append(name)
            size += nbytes
        yield shard


def write_shards(weights: Weights, directory: Path, limit: int = SHARD_BYTES) -> None:
    """Writes ``model.safetensors``, or shards of at most ``limit`` bytes and their index.

    One shard at a time is in memory.
    """
    shards = list(weights.shards(limit))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        file = file if len(shards) > 1 else "model.safetensors"
        tensors = {name: weights[name] for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(entry.nbytes for entry in weights.entries.values())
        content = {"metadata": {"total_size": total}, "weight_map": index}
        path = directory / "model.safetensors.index.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
