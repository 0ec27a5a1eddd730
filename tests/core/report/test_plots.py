from __future__ import annotations

import math

import numpy as np
import pytest

from adaptive.core import ChoiceProblem
from adaptive.core.report import allocation_plot, plots
from adaptive.core.report.style import to_svg

PROBLEM = ChoiceProblem(
    loss=[[0.0, 0.1, 0.9], [0.0, math.inf, 0.2]],
    cost={"latency": [[2.0, 1.0, 0.0], [2.0, 1.0, 1.0]], "memory": [[4, 2, 1], [4, 2, 1]]},
    groups=["layer 0", "layer 1"],
    options=["full", "half", "none"],
)

FIGURES = {
    "frontier": lambda: plots.frontier_plot(
        [(2.0, 0.1), (1.0, 0.3)],
        x="latency (ms)",
        y="loss",
        others={"uniform": [(1.5, 0.4)]},
        marked={"child": (1.0, 0.3)},
    ),
    "allocation": lambda: allocation_plot(PROBLEM, [1, 2]),
    "predicted": lambda: plots.predicted_measured_plot(
        [{"name": "child", "predicted": 2.0, "measured": 2.2}], unit="ms"
    ),
    "ladder": lambda: plots.ladder_plot({"half": [0.1, float("nan")], "none": [1.0, 2.0]}),
    "ladder of many": lambda: plots.ladder_plot({f"o{i}": [i + 1.0, i + 2.0] for i in range(30)}),
    "ladder with zeros": lambda: plots.ladder_plot({"half": [0.0, 0.1]}),
    "curves": lambda: plots.curves_plot({"child": [(0, 2.0), (1, 1.0)]}, log=True),
    "compare": lambda: plots.compare_plot(
        {"child": 1.4, "random": 1.6}, x="loss", reference=("parent", 1.3)
    ),
}
WORDS = {
    "frontier": ["child", "uniform", "frontier", "latency (ms)"],
    "allocation": ["layer 0", "layer 1", "half", "latency: 50 %", "reference", "choice"],
    "predicted": ["child (-9.1%)", "measured (ms)"],
    "ladder": ["half", "none", "layer"],
    "ladder of many": ["o29"],
    "ladder with zeros": ["half"],
    "curves": ["step", "loss"],
    "compare": ["child", "1.4", "dashed: parent, 1.3"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_it_shows(name):
    svg = to_svg(FIGURES[name](), "f")
    for words in WORDS[name]:
        assert f">{words}</text>" in svg
    assert "black" not in svg and "#000000" not in svg  # would vanish on a dark page


def test_the_choice_and_the_reference_are_where_they_belong():
    figure = allocation_plot(PROBLEM, [1, 2], resource="memory")
    left, right = figure.axes
    reference, choice = (points.get_offsets() for points in left.collections)
    assert np.array_equal(reference, [[0, 0], [0, 1]])
    assert np.array_equal(choice, [[1, 0], [2, 1]])
    assert [bar.get_width() for bar in right.containers[1]] == [25.0, 12.5]


def test_an_option_that_is_not_available_has_no_cell():
    left = allocation_plot(PROBLEM, [1, 2]).axes[0]
    cells = sum((patch.get_path().codes == 1).sum() for patch in left.patches)
    assert cells == 5


def test_a_worse_option_is_darker():
    left = allocation_plot(PROBLEM, [1, 2]).axes[0]
    shade = {}
    for patch in left.patches:
        path = patch.get_path()
        for x, y in path.vertices[path.codes != path.CLOSEPOLY]:
            shade[round(x), round(y)] = patch.get_alpha()
    assert shade[0, 0] < shade[1, 0] < shade[2, 1] < shade[2, 0]


def test_a_large_problem_stays_a_small_drawing():
    problem = ChoiceProblem(
        loss=np.random.default_rng(0).random((80, 54)), cost={"latency": np.ones((80, 54))}
    )
    figure = allocation_plot(problem, np.zeros(80, dtype=int))
    assert figure.get_size_inches()[1] < 12
    assert len(to_svg(figure, "f")) < 800_000


def test_an_infeasible_frontier_still_draws():
    assert ">child</text>" in to_svg(
        plots.frontier_plot([], x="latency", y="loss", marked={"child": (1.0, 2.0)}), "f"
    )
