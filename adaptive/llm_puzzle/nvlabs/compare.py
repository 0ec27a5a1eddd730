"""A published child in the terms of a library: which variant each of its layers is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptive.core import Budget, ChoiceProblem, UserError
from adaptive.llm_puzzle.arch import architecture
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.nvlabs.options import Layers, Option

NEAR = 0.1
"""Largest relative difference in FFN width at which a variant may stand in for a layer."""

SLACK = 1e-9
"""Share by which the optimum may exceed a child's own cost: rounding of its sums."""


@dataclass(frozen=True)
class Matched:
    """A published child's layers among a library's variants.

    Attributes:
        config: the child's shape.
        layers: indices of the layers that the library has a variant for, [G].
        choice_G: those variants.
        approximate: names of layers whose variant has another width, with both widths.
        missing: names of layers without a variant.
    """

    config: PuzzleModelConfig
    layers: list[int]
    choice_G: np.ndarray
    approximate: list[str]
    missing: list[str]

    def problem(self, whole: ChoiceProblem) -> ChoiceProblem:
        """The problem over the matched layers alone, so that both sides price the same."""
        if not self.missing:
            return whole
        data = whole.to_json()
        labels = [list(whole.options[i]) for i in self.layers]
        return ChoiceProblem.from_json(
            {
                "loss": [data["loss"][i] for i in self.layers],
                "cost": {n: [rows[i] for i in self.layers] for n, rows in data["cost"].items()},
                "groups": [whole.groups[i] for i in self.layers],
                "options": labels,
                "reference": [data["reference"][i] for i in self.layers],
                "workload": data["workload"],
            }
        )

    def budget(self, problem: ChoiceProblem) -> Budget:
        """The child's own latency and memory as limits."""
        cost = problem.total(self.choice_G)
        return Budget({name: cost[name] * (1 + SLACK) for name in ("latency", "memory")})


def match(arch: str, layers: Layers, parent: PuzzleModelConfig) -> Matched:
    """Finds the variant that each layer of a published child is.

    The same attention and FFN where they are listed; otherwise, with the same attention, the FFN of
    nearest width if it is within 10 %.

    Args:
        arch: as in the configuration.
        layers: options of every layer.
        parent: whose library it is.

    Raises:
        UserError: the child is of another parent, or none of its layers is in the library.
    """
    config = architecture(arch)
    found = (config.num_hidden_layers, config.hidden_size)
    if found != (parent.num_hidden_layers, parent.hidden_size):
        raise UserError(
            f"arch={arch} has {found[0]} layers of width {found[1]}, the library's parent "
            f"{parent.num_hidden_layers} of {parent.hidden_size}: give the library of its parent"
        )
    at: list[int] = []
    choice: list[int] = []
    approximate, missing = [], []
    for i, (entry, options) in enumerate(zip(config.blocks, layers, strict=True)):
        block = BlockOption.from_config(entry)
        k = _nearest(block, options)
        if k is None:
            missing.append(f"layer {i} ({block.label})")
            continue
        if options[k].block != block:
            approximate.append(f"layer {i} ({block.label} as {options[k].block.label})")
        at.append(i)
        choice.append(k)
    if not at:
        raise UserError(
            f"arch={arch}: none of its layers is in the library; give the library of its parent"
        )
    return Matched(config, at, np.array(choice, dtype=np.int64), approximate, missing)


def _nearest(block: BlockOption, options: Sequence[Option]) -> int | None:
    """Index of the option that a block is, or of the nearest one that may stand in for it."""
    width = block.ffn.width
    near = [
        (abs(option.block.ffn.width - width), k)
        for k, option in enumerate(options)
        if option.block.attention == block.attention and option.block.ffn.kind == block.ffn.kind
    ]
    distance, k = min(near, default=(0, None))
    return k if distance <= NEAR * width else None
