"""Three answers to one budget: tokens alone, architecture alone, and both together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adaptive.core import (
    Allocation,
    Budget,
    ChoiceProblem,
    InfeasibleError,
    format_quantity,
    solve,
    solve_best,
)
from adaptive.core.blockwise.baselines import BASELINES
from adaptive.core.blockwise.search import Found, search
from adaptive.quadformer.puzzle.config import ANSWERS, ARCHITECTURE, JOINT, TOKENS
from adaptive.quadformer.puzzle.problems import untouched
from adaptive.quadformer.puzzle.settings import SearchConfig

NUMBERS = 4  # of tokens, whose answers are found to keep the budget, before the best is taken

Measure = Callable[[int, np.ndarray], float]
"""(tokens, choice without the group of the tokens) to measured seconds."""


@dataclass(frozen=True)
class Answer:
    """What one way of spending the budget came to.

    Attributes:
        tokens: of each image.
        choice: index of an option of every group of the space.
        loss: predicted.
        bound: no choice of this kind has less, as predicted; None: nothing is known.
        latency: predicted, in seconds.
        measured: by the check of the search, in seconds; None where nothing was checked.
        labels: of the options.
    """

    tokens: int
    choice: list[int]
    loss: float
    bound: float | None
    latency: float
    measured: float | None
    labels: list[str]


def kinds(problems: Mapping[int, ChoiceProblem]) -> dict[str, dict[int, ChoiceProblem]]:
    """The problems that each answer may choose from; the full grid's has the most tokens."""
    full = max(problems)
    return {
        JOINT: dict(problems),
        TOKENS: {tokens: untouched(problem) for tokens, problem in problems.items()},
        ARCHITECTURE: {full: problems[full]},
    }


def answers(
    problems: Mapping[int, ChoiceProblem],
    limit: float,
    config: SearchConfig,
    measure: Measure | None = None,
) -> tuple[dict[str, Answer], dict[str, str]]:
    """The answers by kind, and why there is none for the others.

    Both restricted answers are choices that the joint search has too. So where the search was
    tightened by what was measured, the joint answer is the best of the three that keep the budget.

    Args:
        problems: by number of tokens.
        limit: seconds.
        config: solver and further searches.
        measure: checks an answer on the device; None: nothing is.

    Raises:
        InfeasibleError: nothing meets the budget, or is found to when timed.
    """
    found: dict[str, Answer] = {}
    refused: dict[str, InfeasibleError] = {}
    promised: dict[str, bool] = {}
    check = None if measure is None else lambda n, choice: measure(n, choice[1:])
    for kind, allowed in kinds(problems).items():
        try:
            best = _checked(allowed, limit, config, check)
        except InfeasibleError as error:
            refused[kind] = error
            continue
        measured = None if best.promise is None else best.promise["measured"]
        found[kind] = _answer(best.batch, best.allocation, measured)
        promised[kind] = best.met
    if not found:
        error = refused[JOINT]
        raise InfeasibleError(
            f"budget.latency: {error}; allow more, or list fewer tokens in num_tokens and cheaper "
            "options in space",
            resource=error.resource,
            limit=error.limit,
            reachable=error.reachable,
        )
    # Where all that both together promised was too slow, there may still be one of the others.
    refused.pop(JOINT, None)
    kept = [kind for kind in found if promised[kind]] or ([JOINT] if JOINT in found else [*found])
    found[JOINT] = found[min(kept, key=lambda kind: (found[kind].loss, kind != JOINT))]
    reasons = {kind: str(error) for kind, error in refused.items()}
    return {kind: found[kind] for kind in ANSWERS if kind in found}, reasons


def baseline_choices(
    problem: ChoiceProblem, limit: float, names: Sequence[str], seed: int
) -> dict[str, Answer | None]:
    """What other ways to choose the blocks come to at a number of tokens; None: out of budget."""
    budget, found = Budget({"latency": limit}), {}
    tokens = int(problem.options[0][0].split()[0])
    for name in names:
        choice = BASELINES[name](problem, budget, seed)
        found[name] = None
        if choice is not None:
            loss, latency = problem.total_loss(choice), problem.total(choice)["latency"]
            labels = [problem.options[g][k] for g, k in enumerate(choice)][1:]
            found[name] = Answer(tokens, choice[1:].tolist(), loss, None, latency, None, labels)
    return found


def best_by_tokens(
    problems: Mapping[int, ChoiceProblem], limit: float, config: SearchConfig
) -> list[dict[str, Any]]:
    """What each number of tokens leaves for the blocks: why the joint answer is where it is.

    Returns:
        Rows of ``tokens``, ``base`` (loss of the parent with so many), ``least`` and ``latency`` of
        the best blocks within the limit, None where there are none.
    """
    rows = []
    for tokens, problem in problems.items():
        row: dict[str, Any] = {"tokens": tokens, "base": problem.loss[0, 0]}
        row |= {"least": None, "latency": None}
        try:
            found = solve(
                problem,
                Budget({"latency": limit}),
                solver=config.solver,
                gap=config.gap,
                time_limit=config.time_limit,
            )
            row |= {"least": found.loss, "latency": found.cost["latency"]}
        except InfeasibleError:
            pass
        rows.append(row)
    return rows


def frontiers(
    problems: Mapping[int, ChoiceProblem], config: SearchConfig
) -> dict[str, list[dict[str, Any]]]:
    """Least predicted loss of each kind at several shares of the parent's latency.

    Returns:
        By kind, rows of ``share``, ``latency`` (s), ``loss`` and ``tokens``; shares that a kind
        cannot meet are left out.
    """
    parent = problems[max(problems)].reference_cost["latency"]
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, allowed in kinds(problems).items():
        found[kind] = []
        for share in sorted(config.frontier):
            budget = Budget({"latency": share * parent})
            try:
                tokens, allocation = solve_best(
                    allowed,
                    budget,
                    solver=config.solver,
                    gap=config.gap,
                    time_limit=config.time_limit,
                )
            except InfeasibleError:
                continue
            found[kind].append(
                {
                    "share": share,
                    "latency": allocation.cost["latency"],
                    "loss": allocation.loss,
                    "tokens": tokens,
                }
            )
    return found


def _checked(
    allowed: Mapping[int, ChoiceProblem],
    limit: float,
    config: SearchConfig,
    check: Callable[[int, np.ndarray], float] | None,
) -> Found:
    """The best answer that keeps the budget where it is measured.

    A price may be off at one number of tokens and right at another, so each of the most promising
    numbers is searched and checked by itself, until none is left that promises less loss, or
    ``NUMBERS`` of them have kept the budget.

    Raises:
        InfeasibleError: none is predicted to keep it, or none does; without the name of a setting.
    """
    budget = Budget({"latency": limit})
    rows = [row for row in best_by_tokens(allowed, limit, config) if row["least"] is not None]
    if check is None or not rows:
        try:
            return search(dict(allowed), budget, config)
        except InfeasibleError as error:
            reason = f"the least latency in reach is {_time(error.reachable, 'up')}"
            raise _refusal(reason, limit, error.reachable) from None
    timed: list[float] = []

    def measure(tokens: int, choice: np.ndarray) -> float:
        timed.append(check(tokens, choice))
        return timed[-1]

    best: Found | None = None
    met = 0
    for row in sorted(rows, key=lambda row: row["least"]):
        if met == NUMBERS or (
            best is not None and best.met and best.allocation.loss <= row["least"]
        ):
            break
        number = row["tokens"]
        try:
            found = search({number: allowed[number]}, budget, config, measure, config.tighten)
        except InfeasibleError:  # what it takes to keep the budget there is out of reach
            continue
        met += found.met
        better = best is None or (found.met, -found.allocation.loss) > (
            best.met,
            -best.allocation.loss,
        )
        best = found if better else best
    if best is None:
        least = _time(min(timed), "up")
        reason = f"what was predicted to keep the budget took {least} or more when timed"
        raise _refusal(reason, limit, min(timed))
    return best


def _refusal(reason: str, limit: float, reachable: float) -> InfeasibleError:
    """Of the limit that was asked for, whatever a search had tightened it to."""
    said = f"{reason}, and {_time(limit, 'down')} are allowed"
    return InfeasibleError(said, resource="latency", limit=limit, reachable=reachable)


def _time(seconds: float, toward: Literal["up", "down"]) -> str:
    return format_quantity(seconds, "latency", toward=toward)


def _answer(tokens: int, allocation: Allocation, measured: float | None) -> Answer:
    return Answer(
        tokens,
        allocation.choice[1:].tolist(),
        allocation.loss,
        allocation.bound,
        allocation.cost["latency"],
        measured,
        allocation.labels()[1:],
    )
