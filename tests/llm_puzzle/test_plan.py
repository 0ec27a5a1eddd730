"""Planning Llama-3.3-70B without its weights."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch

import adaptive
from adaptive.core import UserError
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.score import LayerScores
from adaptive.llm_puzzle.settings import ShapeConfig, SpaceConfig
from adaptive.llm_puzzle.shapes import stack
from adaptive.llm_puzzle.space import search_space

LLAMA_70B = 70_553_706_496  # Llama-3.1-70B and 3.3-70B, from the published checkpoints
LLAMA_8B = 8_030_261_248  # Llama-3.1-8B


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return adaptive.load("puzzle_70b").run(tmp_path_factory.mktemp("plan") / "run")


def test_the_recipe_needs_no_weights_and_counts_to_the_parameter(planned):
    assert planned.summary["parent.params"] == LLAMA_70B
    assert planned.summary["plan.layers"] == 80 and planned.summary["plan.options"] == 54
    assert planned.summary["plan.device"] == "h100-sxm"
    # 54^80, Puzzle, section 2
    assert planned.summary["plan.log10_architectures"] == pytest.approx(138.6, abs=0.05)


def test_weights_and_kv_cache_make_the_memory(planned):
    """bf16 weights; 2 x 8 KV heads x 128 x 2 bytes a layer and token, 256 sequences of 1152."""
    cache = 80 * 2 * 8 * 128 * 2 * 256 * (128 + 1024)
    assert planned.summary["parent.memory"] == 2 * LLAMA_70B + cache


def test_the_bounds_are_possible(planned):
    summary = planned.summary
    # All weights are read once a decode step at 3.35 TB/s at the very least.
    assert summary["latency.parent.bound"] > 1023 * 2 * 69e9 / 3.35e12
    # Published, measured in FP8 at TP1: 1274 tokens/s (Puzzle, table of throughputs).
    assert summary["throughput.parent.bound"] > 1274 / 2
    for name in ("params", "memory"):
        assert 0 < summary[f"smallest.{name}"] < 0.05 * summary[f"parent.{name}"]
    assert summary["smallest.latency.bound"] < summary["latency.parent.bound"]


def test_every_option_has_a_row(planned):
    [path] = planned.dir.rglob("plan.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["option"] for row in rows}) == 54
    assert rows[0]["option"] == "kv8+ffn28672" and rows[-1]["option"] == "no_op+no_op"
    first = {name: float(value) for name, value in rows[0].items() if name != "option"}
    for row in rows[1:]:
        for name, value in first.items():
            assert float(row[name]) <= value
    attention = 8192 + 2 * 8192 * 8192 + 2 * 8192 * 1024
    assert float(rows[0]["params"]) == attention + 8192 + 3 * 8192 * 28672
    assert {float(v) for k, v in rows[-1].items() if k != "option"} == {0.0}


def test_a_frontier_without_scores_is_refused_with_directions(planned):
    refusal = planned.summary["frontier"]
    assert refusal.startswith("refused: scores are missing")
    assert "plan_only=false" in refusal and "score.path=" in refusal
    assert not list(planned.dir.rglob("frontier.json"))
    assert "scores are missing" in planned.report.read_text()


@pytest.mark.parametrize("there", [False, True])
def test_scores_that_are_not_there_are_one_sentence(tmp_path, there):
    path = tmp_path / "scores"
    if there:
        path.mkdir()
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"score\.path=.*scores holds no scores\.json"):
        adaptive.load("puzzle_70b", f"score.path={path}").run(run)
    assert not list(run.rglob("plan.csv"))


def test_scores_make_a_frontier(tmp_path):
    """Made-up ones are for tests alone: dearer in later layers, cheap options cost more."""
    config = adaptive.load("puzzle_70b").config
    model = from_shape(config.shape)
    from adaptive.llm_puzzle.blocks import BlockOption

    space = search_space(config.space, [BlockOption.from_config(b) for b in model.blocks])
    scores = []
    for i, layer in enumerate(space):
        table = torch.arange(len(layer.blocks), dtype=torch.float64) * (1 + i)
        values = table.view(len(layer.attention), len(layer.ffn)).numpy()
        labels = [[o.label for o in half] for half in (layer.attention, layer.ffn)]
        tables = dict.fromkeys(("kl", "lm_loss", "cosine"), values)
        scores.append(LayerScores(*labels, tables).to_json())
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    settings = [f"score.path={tmp_path}", "search.frontier=[0.9,0.6]", "budget.memory=null"]
    result = adaptive.load("puzzle_70b", *settings).run(tmp_path / "run")
    assert result.summary["frontier"] == "2 points in frontier.json"
    [path] = result.dir.rglob("frontier.json")
    rows = json.loads(path.read_text())
    assert rows[0]["loss"] > rows[1]["loss"] > 0
    for row, part in zip(rows, (0.6, 0.9), strict=True):
        assert row["latency"] <= part * result.summary["latency.parent.bound"] * (1 + 1e-9)
        assert (row["loss"] - row["bound"]) <= 1e-3 * row["loss"]
    # An engine that lacks some of the options makes a dearer frontier.
    settings += ["search.portable=vllm"]
    result = adaptive.load("puzzle_70b", *settings).run(tmp_path / "portable")
    [path] = result.dir.rglob("frontier.json")
    assert json.loads(path.read_text())[0]["loss"] > rows[0]["loss"]


def test_a_parent_is_planned_from_its_configuration_alone(parent_dir, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copyfile(parent_dir / "config.json", bare / "config.json")
    result = adaptive.load("puzzle_70b", "shape=null", f"parent={bare}", "space.kv_heads=null").run(
        tmp_path / "run"
    )
    assert result.summary["plan.layers"] == 3
    assert result.summary["plan.options"] == 5 * 8


def test_the_default_shape_is_llama_8b():
    config = from_shape(ShapeConfig())
    assert stack(config).params() == LLAMA_8B
    with torch.device("meta"):
        model = PuzzleForCausalLM(config)
    assert sum(weight.numel() for weight in model.parameters()) == LLAMA_8B


def test_priced_parameters_are_those_of_the_model(child):
    assert stack(child.config).params() == sum(w.numel() for w in child.parameters())


def test_a_space_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"space\.kv_heads: 3 does not divide the parent's 8"):
        adaptive.load("puzzle_70b", "space.kv_heads=[3]").run(tmp_path / "run")
    assert SpaceConfig().kv_heads is None


def test_scores_of_another_parent_are_refused(tmp_path):
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(UserError, match="scores of 0 layers, but the parent has 80"):
        adaptive.load("puzzle_70b", f"score.path={tmp_path}").run(tmp_path / "run")
