"""From scores and prices to the problems of the core, one for each number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptive.core import Budget, ChoiceProblem, UserError
from adaptive.quadformer.puzzle.costs import Costs
from adaptive.quadformer.puzzle.score import Scores, repaired
from adaptive.quadformer.puzzle.space import Group

TOKENS = "tokens"


def problem_at(
    space: Sequence[Group], scores: Scores, costs: Costs, metric: str, isotonic: bool
) -> ChoiceProblem:
    """Halves of blocks x sizes at one number of tokens, with latency and parameters.

    The first group, of one option, is the number of tokens: its loss is what the parent loses by
    them, its latency that of everything but the blocks. So the loss of a choice is measured from
    the parent at its full grid, whatever the number.

    Args:
        space: groups.
        scores: at a number of tokens.
        costs: at the same.
        metric: which score is the loss.
        isotonic: whether it is repaired where a cheaper option scores better.
    """
    values = repaired(scores, metric) if isotonic else scores.values[metric]
    scale = costs.scale
    return ChoiceProblem(
        loss=[[scores.base[metric]], *values],
        cost={
            "latency": [
                [scale * costs.shell],
                *([scale * found for found in row] for row in costs.seconds),
            ],
            "params": [[0.0], *costs.params],
        },
        groups=[TOKENS, *(group.name for group in space)],
        options=[[f"{scores.tokens} tokens"], *(list(group.labels) for group in space)],
    )


def untouched(problem: ChoiceProblem) -> ChoiceProblem:
    """The same problem where no block may change."""
    data = problem.to_json()
    loss = [
        [value if k == own else None for k, value in enumerate(row)]
        for row, own in zip(data["loss"], data["reference"], strict=True)
    ]
    return ChoiceProblem.from_json({**data, "loss": loss})


def part_of(problem: ChoiceProblem, rows: Sequence[int]) -> ChoiceProblem:
    """Some groups of a problem, for pictures."""
    data = problem.to_json()
    options: Any = problem.options
    return ChoiceProblem(
        [_numbers(data["loss"][g]) for g in rows],
        {name: [_numbers(values[g]) for g in rows] for name, values in data["cost"].items()},
        groups=[problem.groups[g] for g in rows],
        options=[list(options[g]) for g in rows],
    )


def absolute(budget: str, problems: Mapping[int, ChoiceProblem]) -> float:
    """Seconds that a budget allows, relative ones to the parent's at its full grid.

    Raises:
        UserError: it is no upper limit.
    """
    full = problems[max(problems)]
    limits = Budget({"latency": budget}).resolve(full)["latency"]
    if limits.max is None or limits.min is not None:
        raise UserError(
            f"budget.latency={budget} asks for no less than a latency: give the most that is "
            "allowed, such as 0.5x"
        )
    return limits.max


def _numbers(row: Sequence[float | None]) -> list[float]:
    return [np.nan if value is None else value for value in row]
