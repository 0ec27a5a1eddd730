"""What the page of a run shows: losses in one unit, and scores where they belong."""

from __future__ import annotations

import math

import pytest

from adaptive.core import ChoiceProblem
from adaptive.quadformer.puzzle.report import _ladders, _rows


@pytest.mark.parametrize("metric", ["kl", "accuracy"])
def test_predicted_and_measured_losses_have_one_unit(metric):
    losses = {"kl": 0.25, "accuracy": 3.0}
    answer = {"tokens": 7, "loss": 0.2, "latency": 0.001}
    found = {"answers": {"joint": answer}, "losses": {"joint": losses}}
    child = {"accuracy": 50.0, "accuracy.before": 40.0, "gmacs": 1.0, "params": 1}
    times = {"parent": 0.002, "children": {"joint": {"latency": 0.001, "speedup": 2.0}}}
    _, row = _rows(found, {"parent": {"accuracy": 60.0}, "joint": child}, times, metric)
    assert row["loss, predicted"] == 0.2 and row["loss, measured"] == losses[metric]
    assert row.get("KL, measured (nats)") == (None if metric == "kl" else 0.25)


def test_scores_of_a_slim_parent_stay_with_their_blocks():
    """Block 1 has fewer heads, and block 2 no attention of its own."""
    problem = ChoiceProblem(
        loss=[[0.0, 0.1, 0.2, 0.3], [0.0, 0.4, 0.5], [0.0], [0.0, 0.6, 0.7, 0.8]],
        cost={"params": [[6, 4, 2, 0], [4, 2, 0], [0], [6, 4, 2, 0]]},
        options=[
            ["6 heads", "4 heads", "2 heads", "none"],
            ["4 heads", "2 heads", "none"],
            ["none"],
            ["6 heads", "4 heads", "2 heads", "none"],
        ],
    )
    found = _ladders(problem, range(4))
    assert list(found) == ["4 heads", "2 heads", "none"]
    nan = math.nan
    assert found["4 heads"] == pytest.approx([0.1, nan, nan, 0.6], nan_ok=True)
    assert found["2 heads"] == pytest.approx([0.2, 0.4, nan, 0.7], nan_ok=True)
    assert found["none"] == pytest.approx([0.3, 0.5, nan, 0.8], nan_ok=True)
