"""What the stages of a Puzzle run share: the parent, and what follows from it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adaptive.core import Workload
from adaptive.core.cost import Origin
from adaptive.core.run import StageContext, resolve_device
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.export.restrict import Restriction, restriction
from adaptive.llm_puzzle.fingerprint import fingerprint
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.parent import (
    Parent,
    load_parent,
    parent_config,
    parent_directory,
)
from adaptive.llm_puzzle.space import LayerSpace, search_space
from adaptive.llm_puzzle.walk import walk_bytes
from adaptive.llm_puzzle.weights import weight_files


class Puzzle:
    """What the stages share: the parent and what follows from it, loaded when first used."""

    def __init__(self, config: PuzzleConfig):
        self.config = config
        self.directory = parent_directory(config.parent)

    @cached_property
    def parent_fingerprint(self) -> str:
        # What text becomes is a part of the parent: special tokens are in a file of their own.
        names = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt")
        tokenizer = (path for name in names for path in self.directory.glob(name))
        weights = weight_files(self.directory)
        return fingerprint([self.directory / "config.json", *weights, *tokenizer])

    @cached_property
    def parent_config(self) -> PuzzleModelConfig:
        """The parent's shape, which is known without its weights."""
        return parent_config(self.directory)

    @cached_property
    def space(self) -> list[LayerSpace]:
        """The options of every layer.

        Raises:
            UserError: the search space does not fit the parent.
        """
        blocks = [BlockOption.from_config(entry) for entry in self.parent_config.blocks]
        return search_space(self.config.space, blocks)

    @cached_property
    def restriction(self) -> Restriction:
        """Which options of the space the child may have, for its engine and exports.

        Raises:
            UserError: they leave no child.
        """
        return restriction(self.config, self.parent_config, self.space)

    @property
    def origin(self) -> Origin:
        """Where latencies are measured: a run that goes on elsewhere measures them anew."""
        return Origin.here(resolve_device(self.config.device))

    @property
    def coupled(self) -> bool:
        """Whether pairs of halves are trained together after a first search."""
        return self.config.distill.coupled_tokens > 0

    def library(self, ctx: StageContext) -> Library:
        """What children are made of: pairs trained together, where there are such, and halves."""
        return Library(ctx.input("library"), ctx.input("coupled") if self.coupled else None)

    @property
    def text_sources(self) -> list[str]:
        data = self.config.data
        return [source for source in (data.calibration, data.validation) if source]

    @property
    def batches(self) -> list[int]:
        return self.config.search.batches or [self.config.workload.batch]

    @property
    def workloads(self) -> dict[int, Workload]:
        work = self.config.workload
        return {batch: Workload(batch, work.prompt, work.output) for batch in self.batches}

    @property
    def lengths(self) -> dict[str, tuple[int, int]]:
        """Rows to read beside those of calibration: name to their length and tokens."""
        config, most = self.config, self.parent_config.max_position_embeddings
        wanted = {}
        if config.evaluate.positions:
            length = min(config.evaluate.positions * config.data.length, most)
            wanted["positions"] = (length, config.evaluate.position_tokens)
        if config.gkd.long.tokens:
            length = config.gkd.long.length or 4 * config.data.length
            wanted["long"] = (min(length, most), config.gkd.long.tokens)
        return wanted

    def parent(self, device: str) -> Parent:
        config = self.config
        mark = self.parent_fingerprint
        return _load(config.parent, mark, device, config.dtype, config.parent_layers)

    def store(self, ctx: StageContext, parent: Parent, rows: Rows, layers: int = 1) -> Store:
        """Where the parent's activations on some rows wait while so many layers need them."""
        nbytes = walk_bytes(parent.model, rows, layers)
        return Store.choose(self.config.activations, nbytes, parent.model.device, ctx.dir)


_LOADED: dict[tuple[str, str, str, str, int | None], Parent] = {}
"""The parent in use; the key holds its fingerprint, which tells changed files from known ones."""


def _load(name: str, mark: str, device: str, dtype: str, layers: int | None) -> Parent:
    """The parent, kept for the stages to come; another one goes before its weights are read."""
    key = name, mark, device, dtype, layers
    if key not in _LOADED:
        _LOADED.clear()
        _LOADED[key] = load_parent(name, torch.device(device), getattr(torch, dtype), layers)
    return _LOADED[key]


def rows_of(ctx: StageContext, name: str, stage: str = "calibration") -> Rows:
    """Rows that an earlier stage has written."""
    return Rows.load(ctx.input(stage) / f"{name}.safetensors")


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
