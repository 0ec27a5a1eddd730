"""The repair of noisy ladders of a layer: only what is a rung, and only the metric asked for."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive.llm_puzzle.isotonic import ladder, repair
from adaptive.llm_puzzle.score import LayerScores


def is_monotone(table_AF: np.ndarray) -> bool:
    return bool((np.diff(table_AF, axis=0) >= 0).all() and (np.diff(table_AF, axis=1) >= 0).all())


def layer(kl: list[list[float]]) -> LayerScores:
    labels = ["kv4", "kv2", "linear", "no_op"], ["ffn48", "ffn24", "ffn8", "no_op"]
    return LayerScores(*labels, {"kl": np.array(kl), "cosine": np.array(kl)})


def test_only_the_ladder_of_the_metric_changes():
    kl = [[0.0, 3.0, 1.0, 0.5], [1.0, 4.0, 5.0, 0.1], [7.0, 3.0, 1.0, 0.2], [9.0, 9.0, 8.0, 0.3]]
    found = repair([layer(kl)], "kl")
    wanted = np.array(kl)
    wanted[0, 1:3] = 2.0
    np.testing.assert_allclose(found.scores[0].values_AF["kl"], wanted, atol=1e-9)
    np.testing.assert_array_equal(found.scores[0].values_AF["cosine"], np.array(kl))
    assert found.entries == 2 and found.largest == pytest.approx(1.0)
    again = repair(found.scores, "kl")
    assert again.entries == 0 and again.largest == 0.0


def test_around_a_child_its_own_pair_is_the_zero():
    """What is dearer than the child's own pair cannot cost anything, what is cheaper must not
    gain."""
    kl = [[0.2, -0.3, 0.1, 1.0], [-0.5, 0.0, -0.1, 1.0], [5.0] * 4, [6.0] * 4]
    found = repair([layer(kl)], "kl", [(1, 1)]).scores[0].values_AF["kl"]
    assert found[1, 1] == 0 and (found[0, :2] <= 0).all() and found[1, 2] >= 0
    assert is_monotone(found[:2, :3])
    np.testing.assert_array_equal(found[2:], np.array(kl)[2:])
    # A pair beside the ladder pins nothing.
    free = repair([layer(kl)], "kl", [(3, 1)]).scores[0].values_AF["kl"]
    assert free[1, 1] != 0 and is_monotone(free[:2, :3])


def test_the_ladder_leaves_out_what_is_no_rung():
    labels = ["kv8", "kv4", "linear", "no_op", "kv4@fp8"]
    assert ladder(labels, "kv") == [0, 1]
    assert ladder(["no_op"], "ffn") == []
