"""What the search has to beat, at the same budget and from the same library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adaptive.core import Budget, ChoiceProblem, InfeasibleError, UserError, solve
from adaptive.core.registry import Registry

Choice = np.ndarray
Baseline = Callable[[ChoiceProblem, Budget, int], "Choice | None"]

BASELINES: Registry[Baseline] = Registry("baseline")

NOTHING = 1e-12
"""Stands for a limit of zero where costs are divided by it."""


def feasible(problem: ChoiceProblem, budget: Budget, choice: Choice) -> bool:
    """Whether a choice of available options is within all limits."""
    rows = np.arange(problem.num_groups)
    if not problem.available[rows, choice].all():
        return False
    total = problem.total(choice)
    return all(
        (low is None or total[name] >= low) and (high is None or total[name] <= high)
        for name, (low, high) in budget.resolve(problem).items()
    )


@BASELINES.register("uniform")
def uniform(problem: ChoiceProblem, budget: Budget, seed: int) -> Choice | None:
    """The same option in every layer: of those within the budget, the one of least summed loss.

    Layers with other options than the first (not searched, for example) keep the reference.
    """
    best, best_loss = None, np.inf
    searched = max(problem.options, key=len)
    for label in searched:
        choice = problem.reference.copy()
        for g, labels in enumerate(problem.options):
            if labels == searched:
                choice[g] = labels.index(label)
        if problem.total_loss(choice) < best_loss and feasible(problem, budget, choice):
            best, best_loss = choice, problem.total_loss(choice)
    return best


@BASELINES.register("greedy")
def greedy(problem: ChoiceProblem, budget: Budget, seed: int) -> Choice | None:
    """The paper's greedy search under a budget.

    Layers are visited from the most to the least replaceable (by their mean score). Each may spend
    an equal part of what is left of every limited resource, and takes the best option that stays
    within it; what it does not spend is left to those after it.
    """
    upper = {
        name: limits.max
        for name, limits in budget.resolve(problem).items()
        if limits.max is not None
    }
    left = {name: limit - problem.fixed.get(name, 0.0) for name, limit in upper.items()}
    loss_GK = np.where(problem.available, problem.loss, np.nan)
    choice = problem.reference.copy()
    order = np.argsort(np.nanmean(loss_GK, axis=1), kind="stable")
    for visited, g in enumerate(order):
        remaining = problem.num_groups - visited
        within_K = problem.available[g].copy()
        for name, amount in left.items():
            # Equal costs must not fail on the last bit of a sum of floats.
            within_K &= problem.cost[name][g] <= amount / remaining * (1 + 1e-12)
        if within_K.any():
            choice[g] = np.nanargmin(np.where(within_K, loss_GK[g], np.nan))
        else:
            choice[g] = _cheapest(problem, g, upper)
        for name in left:
            left[name] -= problem.cost[name][g, choice[g]]
    return choice if feasible(problem, budget, choice) else None


def _cheapest(problem: ChoiceProblem, g: int, upper: dict[str, float]) -> int:
    """The option of a group that takes the least of the limits, all of them counted alike."""
    share_K = sum(problem.cost[name][g] / max(limit, NOTHING) for name, limit in upper.items())
    return int(np.nanargmin(np.where(problem.available[g], share_K, np.nan)))


@BASELINES.register("marginal")
def marginal(problem: ChoiceProblem, budget: Budget, seed: int) -> Choice | None:
    """Marginal greedy: from the reference, the cheapest loss per saving again and again.

    A step gives one layer another option. Its saving is how much nearer it brings the whole to the
    budget: the decrease of what exceeds the limits, each excess in units of its limit. So a saving
    beyond what is needed counts for nothing. A step that saves and costs no loss is free, and the
    one that gains most comes first.
    """
    uppers = [
        (name, limit.max)
        for name, limit in budget.resolve(problem).items()
        if limit.max is not None
    ]
    rows = np.arange(problem.num_groups)
    there_G = problem.available[rows, problem.reference]
    choice = np.where(there_G, problem.reference, problem.loss.argmin(1))
    while not feasible(problem, budget, choice):
        total, saving_GK = problem.total(choice), np.zeros(problem.loss.shape)
        for name, limit in uppers:
            cost_GK = problem.cost[name]
            # A hair below the limit, so that no rounding hides an excess.
            over = total[name] - limit * (1 - 1e-11)
            left_GK = over + cost_GK - cost_GK[rows, choice][:, None]
            saving_GK += (max(over, 0.0) - np.maximum(left_GK, 0.0)) / max(limit, NOTHING)
        # Every step lowers the excess by a share that floats can tell, so the steps come to an end.
        g_S, k_S = np.nonzero(problem.available & (saving_GK > 1e-12))
        if not len(g_S):
            return None
        extra_S = problem.loss[g_S, k_S] - problem.loss[g_S, choice[g_S]]
        price_S = np.where(extra_S > 0, extra_S / saving_GK[g_S, k_S], extra_S)
        step = int(price_S.argmin())
        choice[g_S[step]] = k_S[step]
    return choice


@BASELINES.register("max_params")
def max_params(problem: ChoiceProblem, budget: Budget, seed: int) -> Choice | None:
    """The paper's max-params: as many parameters as the budget allows, whatever the scores say."""
    if "params" not in problem.cost:
        raise UserError("baselines=max_params needs params among the problem's costs")
    params_GK = np.where(problem.available, problem.cost["params"], np.nan)
    missing_GK = np.nanmax(params_GK) - params_GK
    lengths = map(len, problem.options)
    loss = [row[:n].tolist() for row, n in zip(missing_GK, lengths, strict=True)]
    by_size = ChoiceProblem.from_json(problem.to_json() | {"loss": loss})
    try:
        return solve(by_size, budget).choice
    except InfeasibleError:
        return None


@BASELINES.register("random")
def random(problem: ChoiceProblem, budget: Budget, seed: int) -> Choice | None:
    """A random choice that spends the budget.

    From random options, layers drawn at random are given a cheaper option until the budget is
    met, then dearer ones for as long as it stays met, so that it is compared at like cost.
    """
    rng = np.random.default_rng(seed)
    limits = budget.resolve(problem)
    shares = [
        problem.cost[name] / max(limit.max, NOTHING)
        for name, limit in limits.items()
        if limit.max is not None
    ]
    share_GK = np.sum(shares, axis=0) if shares else np.zeros_like(problem.loss)
    G = problem.num_groups
    choice = np.array([rng.choice(np.flatnonzero(row)) for row in problem.available])
    for _ in range(100 * G):
        if feasible(problem, budget, choice):
            break
        _move(problem, share_GK, choice, rng, cheaper=True)
    if not feasible(problem, budget, choice):
        return None
    for _ in range(20 * G):
        moved = choice.copy()
        _move(problem, share_GK, moved, rng, cheaper=False)
        if feasible(problem, budget, moved):
            choice = moved
    return choice


def _move(
    problem: ChoiceProblem,
    share_GK: np.ndarray,
    choice: Choice,
    rng: np.random.Generator,
    cheaper: bool,
) -> None:
    """Gives one random group a random option that takes less (or more) of the budget."""
    g = int(rng.integers(problem.num_groups))
    now = share_GK[g, choice[g]]
    better_K = share_GK[g] < now if cheaper else share_GK[g] > now
    candidates = np.flatnonzero(problem.available[g] & better_K)
    if len(candidates):
        choice[g] = rng.choice(candidates)
