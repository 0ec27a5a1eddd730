"""Places of figures that tell something: that they are there, where they are, and what they say."""

from __future__ import annotations

import gc
import re
import weakref
from xml.etree import ElementTree

import numpy as np
import pytest

from adaptive.core import ChoiceProblem
from adaptive.core.report import (
    Outlines,
    allocation_plot,
    compare_plot,
    curves_plot,
    frontier_plot,
    ladder_plot,
    picture_plot,
    predicted_measured_plot,
)
from adaptive.core.report.labels import label
from adaptive.core.report.spots import MOST, overlay, spot, spots_of
from adaptive.core.report.style import PHONE, canvas, house_style, narrow_svg, to_svg


def texts(figure) -> list[str]:
    return [one.text for one in spots_of(figure)]


def test_every_point_of_a_frontier_tells_its_values_and_its_note():
    figure = frontier_plot(
        [(1.0, 0.3), (2.0, 0.1)],
        x="ms",
        y="loss",
        others={"uniform": [(1.5, 0.4)]},
        marked={"child": (1.0, 0.3)},
        notes={"frontier": ["layer 0: none", ""], "child": ["kept"]},
        name="frontier",
    )
    assert texts(figure) == [
        "frontier\nms: 1.000\nloss: 0.3000\nlayer 0: none",
        "frontier\nms: 2.000\nloss: 0.1000",
        "uniform\nms: 1.500\nloss: 0.4000",
        "child\nms: 1.000\nloss: 0.3000\nkept",
    ]


def test_notes_stay_with_the_points_that_they_were_given_for():
    figure = frontier_plot([(2.0, 0.1), (1.0, 0.3)], x="ms", y="l", notes={"frontier": ["b", "a"]})
    assert [one.text[-1] for one in spots_of(figure)] == ["b", "a"]
    assert [one.left for one in spots_of(figure)] == [2.0, 1.0]


def test_curves_tell_the_last_value_of_each_at_a_step():
    figure = curves_plot({"a": [(0, 1.0), (10, 0.5)], "b": [(5, 2.0)]})
    assert texts(figure) == [
        "step 0\na: 1.000",
        "step 5\na: 1.000\nb: 2.000",
        "step 10\na: 0.5000\nb: 2.000",
    ]
    edges = [(one.left, one.right) for one in spots_of(figure)]
    assert edges == [(0, 2.5), (2.5, 7.5), (7.5, 10)]


@pytest.mark.parametrize("curves", [{}, {"a": []}, {"a": [(3, 1.0)]}])
def test_curves_of_hardly_anything_are_drawn(curves):
    figure = curves_plot(curves)
    assert len(spots_of(figure)) == sum(map(len, curves.values()))
    ElementTree.fromstring(to_svg(figure, "f"))


def test_long_curves_stay_a_small_drawing():
    figure = curves_plot({"loss": [(step, 1 / (step + 1)) for step in range(20_000)]})
    assert len(spots_of(figure)) == 80 and len(to_svg(figure, "f")) < 60_000


def test_a_ladder_of_very_many_scores_tells_its_ends_by_layer():
    ladders = {f"option {n}": [n + 1.0] * 80 for n in range(54)}
    assert MOST < 54 * 80
    told = texts(ladder_plot(ladders))
    assert len(told) == 80
    assert told[7] == "layer 7, 54 options\nmin: option 0 1.000\nmax: option 53 54.00"


def test_the_options_of_a_problem_tell_loss_cost_and_who_has_them():
    problem = ChoiceProblem(
        loss=[[0.0, 0.1, 0.9], [0.0, np.inf, 0.2]],
        cost={"latency": [[2e-3, 1e-3, 0.0], [2e-3, 1e-3, 1e-3]]},
        groups=["layer 0", "layer 1"],
        options=["full", "half", "none"],
    )
    told = texts(allocation_plot(problem, [0, 2], names=("parent", "child")))
    assert told[0] == "layer 0: full (parent, child)\nloss 0\nlatency 2 ms"
    assert told[1] == "layer 0: half\nloss 0.1000\nlatency 1 ms"
    assert told[3] == "layer 0, latency\nparent 2 ms\nchild 2 ms"
    assert told[5] == "layer 1: none (child)\nloss 0.2000\nlatency 1 ms" and len(told) == 7


def test_what_was_predicted_and_compared_tells_its_error():
    rows = [{"name": "child", "predicted": 2.0, "measured": 2.2}]
    assert texts(predicted_measured_plot(rows, unit="ms")) == [
        "child\npredicted 2.000 ms\nmeasured 2.200 ms\nerror -9.1%"
    ]
    told = texts(compare_plot({"child": 1.4}, x="loss", reference=("parent", 1.3)))
    assert told == ["child\nloss: 1.4\n+0.1 to parent"]


def test_outlines_on_a_picture_tell_their_texts():
    quad_42 = np.array([[10, 20], [60, 20], [60, 30], [10, 30]], float)
    figure = picture_plot(np.zeros((90, 160, 3), np.uint8), [Outlines([quad_42], "#fff", "-", "w")])
    (one,) = spots_of(figure)
    assert (one.left, one.right, one.bottom, one.top, one.text) == (10, 60, 30, 20, "w")


@house_style
def one_place():
    figure, axes = canvas(4, 3)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    spot(axes, 0.5, 0.5, 'a <b> & "c"')
    return figure


def test_the_shape_lies_over_its_place_and_its_text_is_escaped():
    figure = one_place()
    svg = to_svg(figure, "f")
    group = re.search(r'<g class="spots" .*?</g>', svg)
    assert group is not None
    (circle,) = ElementTree.fromstring(group[0])
    axes = figure.axes[0].get_position()
    assert float(circle.attrib["cx"]) == pytest.approx((axes.x0 + axes.x1) / 2 * 288, abs=0.1)
    assert float(circle.attrib["cy"]) == pytest.approx((2 - axes.y0 - axes.y1) / 2 * 216, abs=0.1)
    assert circle[0].text == 'a <b> & "c"'
    assert svg.endswith("</g></svg>") and 'role="group"' in svg


def test_figures_without_places_are_pictures():
    figure, _ = canvas()
    assert overlay(figure) == "" and 'role="img"' in to_svg(figure, "f")


def test_a_figure_of_one_column_is_drawn_again_for_a_phone_and_is_left_as_it_was():
    figure = one_place()
    svg = narrow_svg(figure, "p")
    assert svg is not None and f"width:{round(PHONE * 96)}px" in svg
    assert figure.get_size_inches()[0] == 4
    assert narrow_svg(canvas(columns=2)[0], "p") is None


def test_a_figure_with_places_and_names_is_freed():
    figure, axes = canvas()
    axes.plot([1, 2], [1, 2])
    spot(axes, 1, 1, "a place")
    label(axes, 1, 1, "a name")
    to_svg(figure, "f")
    gone = weakref.ref(figure)
    del figure, axes
    gc.collect()
    assert gone() is None
