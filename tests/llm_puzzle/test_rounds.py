"""Iterative Puzzle: part of the way, scores around the child that is there, and on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_puzzle import library_of

from adaptive.core import Budget, ChoiceProblem, UserError, Workload
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.library import HealedLibrary, Library
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.rounds import Scored, part_way, scores_stage
from adaptive.llm_puzzle.score import (
    METRICS,
    LayerScores,
    compare,
    load_scores,
    score_library,
)
from adaptive.llm_puzzle.settings import ScoreConfig, SearchConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space


@pytest.fixture
def problem() -> ChoiceProblem:
    return ChoiceProblem(
        [[0, 1], [0, 1]],
        {"latency": [[4e-3, 1e-3], [4e-3, 1e-3]], "memory": [[600, 1], [400, 1]]},
        workload=Workload(2, 100, 0),
    )


def test_the_way_is_geometric(problem):
    """Of a way to 1.728x a third is 1.2x and two thirds are 1.44x."""
    budget = Budget({"latency": "1.728x"})
    for index, speedup in ((1, 1.2), (2, 1.44), (3, 1.728)):
        limits = part_way(budget, problem, index / 3).resolve(problem)
        assert limits["latency"].max == pytest.approx(8e-3 / speedup)


def test_each_limit_goes_its_own_way_and_lower_ones_hold_at_once(problem):
    budget = Budget({"throughput": "2x", "memory": {"min": "10%", "max": "25%"}, "latency": "9ms"})
    limits = part_way(budget, problem, 0.5).resolve(problem)
    assert limits["latency"].max == pytest.approx(8e-3 / np.sqrt(2))
    assert limits["memory"].max == pytest.approx(500) and limits["memory"].min == 100
    # A limit that the parent meets is no way to go.
    loose = part_way(Budget({"latency": "9ms"}), problem, 0.5).resolve(problem)
    assert loose["latency"].max == pytest.approx(9e-3)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 0.9))
def test_a_longer_way_is_a_tighter_limit(a, b, part):
    problem = ChoiceProblem([[0, 1]], {"latency": [[4e-3, 1e-5]]})
    budget = Budget({"latency": f"{100 * part}%"})
    near, far = (
        part_way(budget, problem, share).resolve(problem)["latency"].max
        for share in (min(a, b), max(a, b))
    )
    assert part * 4e-3 * (1 - 1e-9) <= far <= near * (1 + 1e-12) and near <= 4e-3 * (1 + 1e-9)


def test_the_last_search_goes_by_the_last_scores():
    names = [scores_stage(SearchConfig(rounds=count)) for count in (1, 2, 3)]
    assert names == ["scores", "scores_1", "scores_2"]


@pytest.fixture(scope="module")
def space(parent):
    return search_space(SpaceConfig(kv_heads=[1], ffn_fractions=[0.5]), parent.blocks)


@pytest.fixture(scope="module")
def library(parent, space, rows, tmp_path_factory) -> Library:
    return library_of(parent, space, rows, tmp_path_factory.mktemp("library"))


def test_scores_around_the_parent_have_a_base_of_zero(parent, space, library, rows, tmp_path):
    score_library(parent.model, space, library, rows, ScoreConfig(), tmp_path)
    scored = Scored.load(tmp_path, space)
    assert list(scored.blocks) == parent.blocks and set(scored.own.values()) == {0.0}
    assert scored.predicted(space, parent.blocks) == 0
    # One replacement is predicted exactly: it is what was measured.
    blocks = [space[0].blocks[5], *parent.blocks[1:]]
    child = realise_child(parent.model, blocks, library)
    measured = compare(parent.model, child, rows, 64)["kl"]
    assert scored.predicted(space, blocks) == pytest.approx(measured, abs=1e-5)
    assert measured > 0.01


def test_scores_around_a_child_predict_its_next_step_exactly(
    parent, space, library, rows, tmp_path
):
    blocks = [layer.blocks[k] for layer, k in zip(space, (5, 0, 10), strict=True)]
    child = realise_child(parent.model, blocks, library)
    own = compare(parent.model, child, rows, 10_000)
    (tmp_path / "child.json").write_text(
        json.dumps({"blocks": [block.to_config() for block in blocks], **own})
    )
    score_library(child, space, library, rows, ScoreConfig(), tmp_path, parent=parent.model)
    scored = Scored.load(tmp_path, space)
    assert list(scored.blocks) == blocks and scored.own == own
    assert scored.predicted(space, blocks) == own["kl"]
    for layer, k in ((0, 0), (1, 7), (2, 3)):
        further = list(blocks)
        further[layer] = space[layer].blocks[k]
        measured = compare(
            parent.model, realise_child(parent.model, further, library), rows, 10_000
        )
        assert scored.predicted(space, further) == pytest.approx(measured["kl"], abs=1e-5)


@pytest.fixture
def healed(parent, space, library, tmp_path):
    """A partial child that was trained (here: shaken), and a library that knows it."""
    blocks = [layer.blocks[k] for layer, k in zip(space, (5, 0, 10), strict=True)]
    child = realise_child(parent.model, blocks, library)
    torch.manual_seed(3)
    for weight in child.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    save_child(child, None, tmp_path / "healed")
    return blocks, child, HealedLibrary(tmp_path / "healed", library)


@torch.no_grad()
def test_a_distilled_child_is_gone_on_from(parent, space, library, healed):
    """Halves in common and all that is outside the layers; the rest is the library's."""
    blocks, child, known = healed
    ids = torch.randint(3, 60, (2, 9))
    again = realise_child(parent.model, blocks, known)
    assert torch.equal(again(ids).logits, child(ids).logits)
    further = [blocks[0], BlockOption(space[1].attention[1], blocks[1].ffn), blocks[2]]
    made = realise_child(parent.model, further, known)
    fresh = library.weights(parent.model, 1, further[1].attention)
    for name, weight in made.named_parameters():
        attention = name.startswith(("model.layers.1.self_attn", "model.layers.1.input_layernorm"))
        wanted = fresh[name.removeprefix("model.layers.1.")] if attention else None
        assert torch.equal(weight, child.get_parameter(name) if wanted is None else wanted), name


def test_a_damaged_one_is_named(healed, library, tmp_path):
    path = tmp_path / "healed" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"^rounds: .*healed is damaged .*; delete .* and run"):
        HealedLibrary(tmp_path / "healed", library)


def test_scores_around_a_distilled_child_predict_its_next_step(
    parent, space, rows, healed, tmp_path
):
    blocks, child, known = healed
    own = compare(parent.model, child, rows, 10_000)
    score_library(child, space, known, rows, ScoreConfig(), tmp_path, parent=parent.model)
    scores = load_scores(tmp_path)
    for layer, k in ((0, 0), (1, 7), (2, 3)):
        further = list(blocks)
        further[layer] = space[layer].blocks[k]
        measured = compare(parent.model, realise_child(parent.model, further, known), rows, 10_000)
        found = scores[layer].values_AF["kl"][space[layer].index(further[layer])]
        assert own["kl"] + found == pytest.approx(measured["kl"], abs=1e-5)


def test_ladders_are_put_in_order_around_the_childs_own_pair(space):
    """The narrow pair is the child's own: what is dearer may gain, up to and not beyond it."""
    kl = np.zeros((4, 4))
    kl[:2, :2] = [[-0.3, -0.5], [0.4, 0.0]]
    options = space[0]
    labels = [option.label for option in options.attention], [o.label for o in options.ffn]
    block = BlockOption(options.attention[1], options.ffn[1])
    scored = Scored([LayerScores(*labels, {"kl": kl})], [block], {"kl": 1.0})
    repaired = scored.repaired(space[:1], "kl")
    found = repaired.scores[0].values_AF["kl"]
    np.testing.assert_allclose(found[:2, :2], [[-0.4, -0.4], [0.0, 0.0]], atol=1e-9)
    assert repaired.entries == 3 and repaired.largest == pytest.approx(0.4)
    assert scored.repaired(space[:1], "kl", wanted=False).scores == scored.scores


def test_compare_does_not_depend_on_the_batch(parent, space, library, rows):
    blocks = [layer.blocks[-1] for layer in space]
    child = realise_child(parent.model, blocks, library)
    one, many = (compare(parent.model, child, rows, tokens) for tokens in (1, 10_000))
    for name in METRICS:
        assert one[name] == pytest.approx(many[name], rel=1e-4) and abs(one[name]) > 0.01
    assert compare(parent.model, parent.model, rows, 64)["kl"] == 0


def test_search_takes_losses_below_zero():
    """Around a child, taking a replacement back gains."""
    from adaptive.core.blockwise.search import search

    problem = ChoiceProblem(
        [[-0.5, 0.0, 0.3], [0.0, 0.2, 0.1], [-0.1, 0.0, -0.05]],
        {"latency": [[3, 2, 1], [3, 2, 1], [3, 2, 1]]},
    )
    for solver in ("mip", "lagrangian", "exhaustive"):
        config = replace(SearchConfig(), solver=solver, gap=0.0)
        found = search({1: problem}, Budget({"latency": 5}), config)
        assert found.allocation.choice.tolist() == [0, 2, 2]
        assert found.allocation.loss == pytest.approx(-0.45)
