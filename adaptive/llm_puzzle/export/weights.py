"""Weights of a model directory, written in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

from adaptive.llm_puzzle.weights import Checkpoint

SHARD_BYTES = 5_000_000_000


def shards(weights: Checkpoint, limit: int) -> Iterator[list[str]]:
    """Names in the order of layers, in lists of at most ``limit`` bytes (or one tensor)."""
    shard: list[str] = []
    size = 0
    for name in sorted(weights.entries, key=_natural):
        nbytes = weights.entries[name].nbytes
        if shard and size + nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += nbytes
    yield shard


def write_shards(weights: Checkpoint, directory: Path, limit: int = SHARD_BYTES) -> None:
    """Writes ``model.safetensors``, or shards of at most ``limit`` bytes and their index.

    One shard at a time is in memory.
    """
    parts = list(shards(weights, limit))
    index: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        file = file if len(parts) > 1 else "model.safetensors"
        tensors = {name: weights[name] for name in names}
        save_file(tensors, directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    if len(parts) > 1:
        total = sum(entry.nbytes for entry in weights.entries.values())
        content = {"metadata": {"total_size": total}, "weight_map": index}
        path = directory / "model.safetensors.index.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
