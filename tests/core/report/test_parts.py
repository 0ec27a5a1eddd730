"""Names beside marks, choices in words, curves from records, and the end of a page."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import toy

from adaptive.core import ChoiceProblem
from adaptive.core.report import Report, choice_text, curves_of, frontier_plot
from adaptive.core.report.provenance import TITLE, environment_facts, stage_lines
from adaptive.core.report.style import narrow_svg, to_svg
from adaptive.core.run import Experiment


@pytest.mark.parametrize("draw", [to_svg, narrow_svg], ids=["roomy", "phone"])
def test_names_of_points_close_together_do_not_cover_each_other(draw):
    marked = {"greedy": (260.0, 1.28), "child": (267.0, 1.06), "other": (262.0, 1.1)}
    points = [(100.0 + n, 3 - n / 100) for n in range(0, 300, 30)]
    figure = frontier_plot(points, x="ms", y="loss", marked=marked)
    draw(figure, "f")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 3
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    axes = figure.axes[0].bbox
    assert all(axes.x0 <= box.x0 and box.x1 <= axes.x1 for box in boxes) or draw is narrow_svg


def problem(groups: list[str]) -> ChoiceProblem:
    count = len(groups)
    return ChoiceProblem(
        loss=np.zeros((count, 3)),
        cost={"latency": np.ones((count, 3))},
        groups=groups,
        options=["full", "half", "none"],
    )


def test_a_choice_in_words_names_ranges_of_layers():
    layers = problem([f"layer {n}" for n in range(8)])
    text = choice_text(layers, [0, 1, 1, 1, 2, 1, 0, 0])
    assert text == "unchanged: 3 of 8\nhalf: layer 1-3, 5\nnone: layer 4"
    assert choice_text(layers, [0] * 8) == "unchanged: 8 of 8"
    assert choice_text(layers, [1] * 4 + [2] * 4, most=1).endswith("and 1 more options")


def test_groups_without_numbers_are_listed():
    assert (
        choice_text(problem(["head", "neck 1"]), [1, 1]) == "unchanged: 0 of 2\nhalf: head, neck 1"
    )


RECORDS = [
    {"stage": "train", "step": 1, "loss": 2.0},
    {"stage": "train", "step": 1, "accuracy": 50.0, "tokens": 64},
    {"stage": "train", "step": 1, "accuracy": 60.0, "tokens": 128},
    {"stage": "train", "step": 2, "loss": 1.0},
    {"stage": "train", "step": None, "loss": 9.0},
]


def test_curves_are_of_what_was_logged():
    assert curves_of(RECORDS, ["loss", "kl"]) == {"loss": [(1, 2.0), (2, 1.0)]}
    assert curves_of(RECORDS, {"accuracy": "{} tokens"}, by="tokens") == {
        "64 tokens": [(1, 50.0)],
        "128 tokens": [(1, 60.0)],
    }
    assert curves_of(iter(RECORDS), ["loss", "accuracy"]).keys() == {"loss", "accuracy"}


def test_a_page_ends_with_command_environment_and_configuration(tmp_path):
    toy.register()
    config = toy.ToyConfig(name="toy", task="toy", items=2)
    result = Experiment(config, "python -m adaptive.run +exp=toy 'a=<b>'").run(tmp_path / "r")
    source = Report("Toy").provenance(replace(config, items=17), result.dir).html()
    end = source[source.index(f">{TITLE}</h2>") :]
    assert "+exp=toy &#x27;a=&lt;b&gt;&#x27;</pre>" in end
    for words in ("items: 17", "<dt>device</dt>", "<dt>seed</dt><dd>0</dd>", "numpy ", "draw"):
        assert words in end
    run = json.loads((result.dir / "run.json").read_text())
    assert run["started"][:10] in end
    assert [line.split()[0] for line in stage_lines(result.dir)] == ["draw", "add", "report"]


def test_without_a_run_the_configuration_is_what_there_is(tmp_path):
    source = Report("x").provenance(toy.ToyConfig(name="toy"), tmp_path).html()
    assert "name: toy" in source and "<dl class=" not in source and "Packages" not in source


def test_a_gpu_and_a_changed_tree_are_told():
    facts = environment_facts(
        {
            "git": {"commit": "0123456789abcdef", "dirty": True},
            "device": {"name": "H100", "bytes": 80 * 2**30, "cuda": "12.8"},
            "attempts": 3,
        }
    )
    assert facts["commit"] == "`0123456789ab` with changes"
    assert facts["device"] == "H100, 80 GiB, CUDA 12.8" and facts["starts"] == "3"
