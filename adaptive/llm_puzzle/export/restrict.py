"""Keeping the search to options that an engine loads and that the exports can express.

Options are masked in the problem alone: library and scores hold all of them, so that another
engine is another search and nothing more.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from adaptive.core import Budget, ChoiceProblem, InfeasibleError, UserError, solve_best
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.export.engines import ENGINES
from adaptive.llm_puzzle.export.formats import EXPORTS
from adaptive.llm_puzzle.export.rules import Rules
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.space import LayerSpace

Key = TypeVar("Key", bound=Hashable)
Mask = list[list[bool]]


@dataclass(frozen=True)
class Restriction:
    """Which options a search may use.

    Attributes:
        masks: whether an option is allowed, one list a layer, options as in ``LayerSpace.blocks``.
            Several masks are alternatives: with an engine whose layers must have equally many KV
            heads there is one for each number of them. None: everything is allowed.
    """

    masks: tuple[Mask, ...] = ()

    def apply(
        self, problems: Mapping[Key, ChoiceProblem], budget: Budget, **settings: Any
    ) -> dict[Key, ChoiceProblem]:
        """The problems with the options that are left.

        Of alternatives, the one whose best choice has the least loss; each is solved for that, by
        predicted costs.

        Args:
            problems: by batch size; their groups and options are those of the space.
            budget: the limits.
            **settings: of ``solve_best``.

        Raises:
            InfeasibleError: no alternative meets the budget.
        """
        if not self.masks:
            return dict(problems)
        # Of a reduced space an alternative may leave some layer nothing; if all do, the first says
        # which.
        masks = [mask for mask in self.masks if _leaves_all(problems, mask)] or self.masks[:1]
        restricted = [
            {key: masked(problem, mask) for key, problem in problems.items()} for mask in masks
        ]
        best, least, error = restricted[0], np.inf, None
        for candidate in restricted if len(restricted) > 1 else ():
            try:
                _, allocation = solve_best(candidate, budget, **settings)
            except InfeasibleError as miss:
                error = error or miss
                continue
            if allocation.loss < least:
                best, least = candidate, allocation.loss
        if len(restricted) > 1 and np.isinf(least):
            assert error is not None
            raise error
        return best


def _leaves_all(problems: Mapping[Key, ChoiceProblem], mask: Mask) -> bool:
    """Whether every layer of every problem has an option that a mask allows."""
    return all(
        available_K[: len(allowed)][allowed].any()
        for problem in problems.values()
        for available_K, allowed in zip(problem.available, mask, strict=True)
    )


def masked(problem: ChoiceProblem, mask: Mask) -> ChoiceProblem:
    """A problem in which only the options of a mask are available.

    The reference stays, available or not: relative budgets still refer to the parent.
    """
    lengths = [len(labels) for labels in problem.options]
    loss = [
        np.where(allowed, losses[:length], np.inf)
        for losses, allowed, length in zip(problem.loss, mask, lengths, strict=True)
    ]
    return ChoiceProblem(
        loss=loss,
        cost={
            name: [row[:length] for row, length in zip(cost_GK, lengths, strict=True)]
            for name, cost_GK in problem.cost.items()
        },
        fixed=problem.fixed,
        groups=problem.groups,
        options=problem.options,
        reference=problem.reference,
        workload=problem.workload,
    )


def restriction(
    config: PuzzleConfig, parent: PuzzleModelConfig, space: Sequence[LayerSpace]
) -> Restriction:
    """What ``search.portable`` and ``export`` leave of a space.

    Raises:
        UserError: the engine or a format cannot do with any child of this parent, or with any
            option of some layer.
    """
    readers, portable = readers_of(config), config.search.portable
    mask = [[True] * len(layer.blocks) for layer in space]
    for key, rules in readers:
        if reason := rules.model(parent):
            raise UserError(f"{key} is not possible with this parent: {reason}")
        for i, layer in enumerate(space):
            reasons = [rules.block(block, i, len(space)) for block in layer.blocks]
            mask[i] = [ok and not why for ok, why in zip(mask[i], reasons, strict=True)]
            if not any(mask[i]):
                raise UserError(
                    f"{key} leaves no option of layer {i} ({next(filter(None, reasons))}); widen "
                    "the space, for example by space.ffn_multiple=256, or choose another engine"
                )
    masks = [mask]
    if any(rules.uniform_kv_heads for _, rules in readers):
        masks = _uniform(mask, space)
        if not masks:
            raise UserError(
                f"search.portable={portable} wants equally many KV heads in every layer, and no "
                "number of them is an option of all layers; widen space.kv_heads or space.layers"
            )
    return (
        Restriction()
        if all(all(row) for row in mask) and len(masks) == 1
        else (Restriction(tuple(masks)))
    )


def readers_of(config: PuzzleConfig) -> list[tuple[str, Rules]]:
    """Whoever has to read the child: the setting that says so, and what that reader can do."""
    readers = [(f"export={name}", EXPORTS[name].rules) for name in config.export]
    portable = config.search.portable
    if portable is not None:
        engine = ENGINES[portable]
        readers.append((f"search.portable={portable}", EXPORTS[engine.export].rules))
        readers.append((f"search.portable={portable}", engine.rules))
    return readers


def _uniform(mask: Mask, space: Sequence[LayerSpace]) -> list[Mask]:
    """One mask for each number of KV heads that every layer can have (or go without)."""
    heads = sorted({option.kv_heads for layer in space for option in layer.attention} - {0})
    masks = [
        [
            [
                ok and block.attention.kv_heads in (0, count)
                for block, ok in zip(layer.blocks, row, strict=True)
            ]
            for layer, row in zip(space, mask, strict=True)
        ]
        for count in reversed(heads)
    ]
    return [candidate for candidate in masks if all(any(row) for row in candidate)]
