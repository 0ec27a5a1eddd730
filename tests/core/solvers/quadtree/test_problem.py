import numpy as np
import pytest
import torch
from quadtrees import best_gain

from adaptive.core import Budget, solve
from adaptive.core.solvers.quadtree import Geometry, allocate, choice_problem, path_min

GEOMETRY = Geometry(64, 128, 8, 64)


def gains(images: int, shrinking: bool = True) -> torch.Tensor:
    """Random gains; shrinking ones never grow from a node to its children."""
    size = (images, GEOMETRY.splittable)
    gain_BS = torch.from_numpy(np.random.default_rng(0).random(size))
    return path_min(gain_BS, GEOMETRY) if shrinking else gain_BS


@pytest.mark.parametrize("tokens", [2, 5, 29, 62, 128])
def test_general_solver_finds_the_exact_optimum(tokens):
    gain_BS = gains(1, shrinking=False)
    found = solve(choice_problem(gain_BS, GEOMETRY), Budget({"tokens": tokens}), gap=0.0)
    best = best_gain(gain_BS[0].numpy(), GEOMETRY)
    assert found.loss == pytest.approx(best[-1] - best[GEOMETRY.splits(tokens)], abs=1e-9)


@pytest.mark.parametrize("images, floor", [(1, None), (3, None), (3, 8)])
@pytest.mark.parametrize("per_image", [11, 47, 92])
@pytest.mark.parametrize("shrinking", [True, False])
def test_sorting_agrees_with_the_general_solver(images, floor, per_image, shrinking):
    """Exactly where gains shrink; elsewhere best-first search is told how far off it may be."""
    gain_BS, total = gains(images, shrinking), images * per_image
    ours = allocate(gain_BS, GEOMETRY, total, floor)
    problem = choice_problem(gain_BS, GEOMETRY)
    general = solve(problem, Budget({"tokens": total}), gap=0.0)
    assert ours.cost["tokens"] == total == general.cost["tokens"]
    assert ours.bound - 1e-9 <= general.loss <= ours.loss + 1e-9
    assert problem.total_loss(ours.choice) <= ours.loss + 1e-9  # the best trees of that size
    assert ours.gap == pytest.approx((ours.loss - ours.bound) / ours.loss)
    if shrinking and not floor:
        assert ours.loss == pytest.approx(general.loss, abs=1e-9) and ours.status == "optimal"
    if floor:
        per_root = 1 + 3 * ours.choice.reshape(images, -1)
        assert (per_root.sum(1) >= floor).all()


def test_price_is_what_the_next_tokens_save():
    gain_BS = gains(1)
    now, next_ = (allocate(gain_BS, GEOMETRY, tokens) for tokens in (47, 50))
    assert now.price["tokens"] == pytest.approx((now.loss - next_.loss) / 3)
    full = allocate(gain_BS, GEOMETRY, GEOMETRY.cells)
    assert (full.loss, full.gap, full.status) == (0.0, pytest.approx(0.0, abs=1e-12), "optimal")


def test_one_level_has_nothing_to_choose():
    geometry = Geometry(32, 32, 16, 16)
    answer = allocate(torch.zeros(2, 0), geometry, 8)
    assert answer.choice.tolist() == [0] * 8 and answer.loss == 0.0
