"""From a released library to the one problem of the library, and to what is odd about its scores.

Shapes: A attention options, F feed-forward options.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive.core import ChoiceProblem, UserError, Workload
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.nvlabs.read import METRICS, Released, Variant
from adaptive.llm_puzzle.score import LayerScores
from adaptive.llm_puzzle.shapes import shape

MIB = 2**20


@dataclass(frozen=True)
class Option:
    """A variant in the units of ``adaptive.core``.

    Attributes:
        block: what it is.
        cost: latency in seconds, memory in bytes, parameters.
        scores: KL, and the increase of the language-model loss, in nats a token; NaN where it was
            not finite or not measured. The parent's own pair has 0 by definition.
        listed: whether the layer lists it; the parent's pair is an option of every layer anyway.
    """

    block: BlockOption
    cost: dict[str, float]
    scores: dict[str, float]
    listed: bool = True

    def to_json(self) -> dict[str, Any]:
        """A plain JSON dictionary, null for NaN."""
        scores = {name: v if math.isfinite(v) else None for name, v in self.scores.items()}
        return {
            "block": self.block.to_config(),
            "cost": self.cost,
            "scores": scores,
            "listed": self.listed,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Option:
        """Inverse of :meth:`to_json`."""
        scores = {name: math.nan if v is None else v for name, v in data["scores"].items()}
        return Option(BlockOption.from_config(data["block"]), data["cost"], scores, data["listed"])


Layers = list[list[Option]]
"""The options of every layer, the parent's own pair first."""


def options(library: Released, model: PuzzleModelConfig) -> Layers:
    """The options of every layer of a parent.

    Args:
        library: of this parent.
        model: the parent's shape.

    Raises:
        UserError: the library is of another parent, or lacks layers of it.
    """
    _check_parent(library, model)
    parent = library.parent
    layers = []
    for variants in library.layers.values():
        own = [v for v in variants if v.block == parent.block]
        others = [_option(v, parent) for v in variants if v.block != parent.block]
        first = _option(own[0] if own else parent, parent, listed=bool(own))
        layers.append([first, *others])
    return layers


def _option(variant: Variant, parent: Variant, listed: bool = True) -> Option:
    cost = {
        "latency": variant.runtime_ms / 1e3,
        "memory": variant.memory_mib * MIB,
        "params": float(variant.params),
    }
    scores = {}
    for name, key in METRICS.items():
        value = variant.metrics.get(key, math.nan)
        if name == "lm_loss":  # the files give the loss itself, a score is what replacing adds
            value -= parent.metrics.get(key, math.nan)
        scores[name] = 0.0 if variant.block == parent.block else value
    scores = {name: v if math.isfinite(v) else math.nan for name, v in scores.items()}
    return Option(variant.block, cost, scores, listed)


def _check_parent(library: Released, model: PuzzleModelConfig) -> None:
    """Refuses a library whose layers are not those of the run's parent.

    Hidden size and heads are in no field of the files, but in the number of parameters.
    """
    found = library.parent
    for i, entry in enumerate(model.blocks):
        block = BlockOption.from_config(entry)
        params = sum(shape(model, half).params() for half in (block.attention, block.ffn))
        if found.block != block or found.params != params:
            raise UserError(
                "library.path is a library of another parent: parent_block_stats.json has "
                f"{found.block.label} with {found.params:,} parameters, layer {i} of this run's "
                f"parent {block.label} with {params:,}; set shape (or parent) to its parent"
            )
    there = {i for i, variants in library.layers.items() if variants}
    extra = sorted(there - set(range(model.num_hidden_layers)))
    if extra:
        raise UserError(
            f"library.path is a library of another parent: block_library.json has layer_{extra[0]},"
            f" but this run's parent has {model.num_hidden_layers} layers; set shape (or parent) "
            "to its parent"
        )
    missing = [i for i in range(model.num_hidden_layers) if i not in there]
    if missing:
        raise UserError(
            f"library.path: block_library.json lacks {_runs(missing)} of the parent's "
            f"{model.num_hidden_layers} layers; take a complete library"
        )


def _runs(layers: list[int]) -> str:
    """Names of layers, those that follow each other as ``layer_4 to layer_9``."""
    runs: list[list[int]] = []
    for i in layers:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    return ", ".join(
        f"layer_{run[0]}" + (f" to layer_{run[-1]}" if len(run) > 1 else "") for run in runs
    )


def problem(layers: Layers, metric: str, workload: Workload) -> ChoiceProblem:
    """Layers x options with loss, latency, memory and parameters of the blocks alone.

    What is around them (embedding, head, activations) has no costs here, as in the demonstration
    of NVlabs/puzzle, so limits and throughputs compare with theirs.

    Args:
        layers: the options.
        metric: which score is the loss; an option where it is not finite is not available.
        workload: that the library was measured at.

    Raises:
        UserError: no option but the parent's has such a score.
    """
    if not any(math.isfinite(o.scores[metric]) for layer in layers for o in layer[1:]):
        raise UserError(
            f"score.metric={metric}: no variant of the library has a finite {METRICS[metric]}; "
            f"choose another of {', '.join(METRICS)}"
        )
    return ChoiceProblem(
        [[option.scores[metric] for option in layer] for layer in layers],
        {name: [[o.cost[name] for o in layer] for layer in layers] for name in layers[0][0].cost},
        groups=[f"layer {i}" for i in range(len(layers))],
        options=[[option.block.label for option in layer] for layer in layers],
        workload=workload,
    )


def ladders(layers: Layers) -> list[LayerScores]:
    """The scores as tables, parent first and then from wide to narrow; NaN where there is none."""
    return [_table(layer) for layer in layers]


def _table(layer: Sequence[Option]) -> LayerScores:
    first, blocks = layer[0].block, [option.block for option in layer]
    attention = sorted({b.attention for b in blocks}, key=lambda a: -a.kv_heads)
    ffn = sorted({b.ffn for b in blocks}, key=lambda f: -f.width)
    attention.sort(key=lambda a: a != first.attention)
    ffn.sort(key=lambda f: f != first.ffn)
    tables = {}
    for name in METRICS:
        table_AF = np.full((len(attention), len(ffn)), np.nan)
        for option in layer:
            at = attention.index(option.block.attention), ffn.index(option.block.ffn)
            table_AF[at] = option.scores[name]
        tables[name] = table_AF
    return LayerScores([a.label for a in attention], [f.label for f in ffn], tables)


def names(layers: Layers, odd: Callable[[Option], bool]) -> list[str]:
    """Names of the options that are odd in some way."""
    return [
        f"layer {i} {option.block.label}"
        for i, layer in enumerate(layers)
        for option in layer
        if odd(option)
    ]


def load_options(directory: Path) -> Layers:
    """The options that the import has kept."""
    return [[Option.from_json(o) for o in row] for row in read_json(directory / "options.json")]


def read_json(path: Path) -> Any:
    """The content of an artefact."""
    return json.loads(path.read_text(encoding="utf-8"))
