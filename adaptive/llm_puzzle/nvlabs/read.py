"""Reads a released block library: three JSON files, made sure of before anything is built on them.

The format is that of NVlabs/puzzle (Bercovich et al., ICML 2025), whose data a user downloads:

- ``measurement_info.json``: ``batch_size``, ``sequence_length``, ``gpu``, ``dtype``.
- ``block_library.json``: ``layer_0``, ``layer_1``, ... to a text for each variant to ``stats``
  (``num_kv_heads`` and ``ffn_intermediate_size``, 0 for a no-op; ``memory_mib``, ``runtime_ms``,
  ``num_params``) and ``metrics`` (``kl_div``; ``lm_loss`` of the whole model with that one block
  replaced). The texts are for people; what a variant is, its stats say.
- ``parent_block_stats.json``: an entry of the same form for a layer of the parent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    NO_FFN,
    AttentionOption,
    BlockOption,
    FFNOption,
)

FILES = ("measurement_info.json", "block_library.json", "parent_block_stats.json")

METRICS = {"kl": "kl_div", "lm_loss": "lm_loss"}
"""Names of scores in a configuration to those in the files."""


@dataclass(frozen=True)
class Variant:
    """One option of one layer, as it was measured.

    Attributes:
        block: what it is.
        memory_mib: mebibytes of its weights and KV cache.
        runtime_ms: milliseconds of the measured workload.
        params: parameters, norms included.
        metrics: by the files' names; NaN or infinite where a measurement failed.
    """

    block: BlockOption
    memory_mib: float
    runtime_ms: float
    params: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Released:
    """A released library.

    Attributes:
        batch, seq_len: sequences, and tokens of each (prompt and output together), of the workload
            that memory and runtimes were measured at.
        gpu, dtype: what they were measured on, as the files say it.
        parent: a layer of the parent.
        layers: index to the variants of that layer, in the order of the file.
    """

    batch: int
    seq_len: int
    gpu: str
    dtype: str
    parent: Variant
    layers: dict[int, list[Variant]]


def library_files(path: str) -> list[Path]:
    """The files of a library.

    Raises:
        UserError: one is missing.
    """
    directory = Path(path).expanduser()
    files = [directory / name for name in FILES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"library.path={path} holds no {' and no '.join(missing)}: give the directory of a "
            f"model in NVlabs/puzzle, with {', '.join(FILES)}"
        )
    return files


def read_released(path: str) -> Released:
    """Reads and checks a library.

    Args:
        path: directory with the three files.

    Raises:
        UserError: a file is missing, is no JSON, or lacks or contradicts a number; says where.
    """
    info, blocks, parent = (_Entry(file.name, _json(file)) for file in library_files(path))
    return Released(
        batch=info.whole("batch_size", least=1),
        seq_len=info.whole("sequence_length", least=1),
        gpu=str(info.content.get("gpu", "unknown GPU")),
        dtype=str(info.content.get("dtype", "unknown dtype")),
        parent=_variant(parent),
        layers=dict(sorted(_layers(blocks).items())),
    )


@dataclass(frozen=True)
class _Entry:
    """A JSON object and the words by which messages speak of it."""

    name: str
    content: Mapping[str, Any]

    def under(self, key: str) -> _Entry:
        """The object below a key."""
        words = " ".join(key.split())  # the texts of variants hold tabs
        found = self.content.get(key)
        if not isinstance(found, Mapping):
            raise self.wrong(f"{words} is {'missing' if found is None else 'no JSON object'}")
        return _Entry(f"{self.name}, {words}", found)

    def number(self, key: str) -> float:
        """A finite number from 0 up."""
        value = self.content.get(key)
        if value is None:
            raise self.wrong(f"{key} is missing")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(f"{key} is {value!r} and no number")
        if not (math.isfinite(value) and value >= 0):
            raise self.wrong(f"{key} is {value}, it must be finite and not negative")
        return float(value)

    def whole(self, key: str, least: int = 0) -> int:
        """A whole number."""
        value = self.number(key)
        if value != int(value) or value < least:
            raise self.wrong(f"{key} is {value:g}, it must be a whole number >= {least}")
        return int(value)

    def metric(self, key: str) -> float:
        """A number that may be negative, or NaN where it could not be measured."""
        value = self.content[key]
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(f"{key} is {value!r} and no number")
        return float(value)

    def wrong(self, what: str) -> UserError:
        return UserError(f"library.path: {self.name}: {what}; take an unchanged copy of the file")


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"library.path: {file.name} cannot be read as JSON ({error}); take an unchanged copy "
            "of the file"
        ) from None
    if not isinstance(content, dict):
        raise UserError(
            f"library.path: {file.name} holds no JSON object; take an unchanged copy of the file"
        )
    return content


def _layers(blocks: _Entry) -> dict[int, list[Variant]]:
    layers: dict[int, list[Variant]] = {}
    for name in blocks.content:
        match = re.fullmatch(r"layer_(0|[1-9]\d*)", name)
        if match is None:
            raise blocks.wrong(f"{name!r} is not the name of a layer, such as layer_0")
        layer = blocks.under(name)
        variants = [_variant(layer.under(text)) for text in layer.content]
        seen: set[BlockOption] = set()
        for variant in variants:
            if variant.block in seen:
                raise layer.wrong(f"{variant.block.label} is listed twice")
            seen.add(variant.block)
        layers[int(match[1])] = variants
    return layers


def _variant(entry: _Entry) -> Variant:
    stats, metrics = entry.under("stats"), entry.under("metrics")
    kv_heads, width = stats.whole("num_kv_heads"), stats.whole("ffn_intermediate_size")
    return Variant(
        BlockOption(
            AttentionOption("gqa", kv_heads) if kv_heads else NO_ATTENTION,
            FFNOption("mlp", width) if width else NO_FFN,
        ),
        stats.number("memory_mib"),
        stats.number("runtime_ms"),
        stats.whole("num_params"),
        {name: metrics.metric(name) for name in METRICS.values() if name in metrics.content},
    )
