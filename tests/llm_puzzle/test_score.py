"""Replace-one-block scores equal what whole forward passes of whole children say."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_puzzle import library_of

from adaptive.core import Workload
from adaptive.core.cost import Roofline
from adaptive.core.hardware import DEVICES
from adaptive.llm_puzzle.blocks import BlockOption, FFNOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.score import (
    METRICS,
    Inversion,
    LayerScores,
    inversions,
    load_scores,
    score_library,
)
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space

SPACE = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=[0, 2])
UNTRAINED = DistillConfig(init="paper", tokens=0)


@pytest.fixture(scope="module")
def space(parent):
    return search_space(SPACE, parent.blocks)


@pytest.fixture(scope="module")
def library(parent, space, rows, tmp_path_factory) -> Library:
    return library_of(parent, space, rows, tmp_path_factory.mktemp("library"), UNTRAINED)


@torch.no_grad()
def replaced(
    parent, library: Library, rows: Rows, layer: int, block, blocks=None
) -> dict[str, float]:
    """The three metrics of one replacement, row by row through whole models, without padding."""
    blocks = list(blocks or parent.blocks)
    blocks[layer] = block
    child = realise_child(parent.model, blocks, library)
    sums, tokens, predicted = dict.fromkeys(METRICS, 0.0), 0, 0
    for ids, n in zip(rows.ids_NT, rows.lengths_N.tolist(), strict=True):
        ids = ids[None, :n]
        ours, theirs = (
            model.model(ids, use_cache=False).last_hidden_state[0]
            for model in (child, parent.model)
        )
        logq, logp = (
            model.lm_head(x).double().log_softmax(-1)
            for model, x in ((child, ours), (parent.model, theirs))
        )
        sums["kl"] += (logp.exp() * (logp - logq)).sum().item()
        sums["cosine"] += (1 - torch.cosine_similarity(ours, theirs, dim=-1)).sum().item()
        targets = ids[0, 1:, None]
        sums["lm_loss"] += (logp - logq)[:-1].gather(-1, targets).sum().item()
        tokens, predicted = tokens + n, predicted + n - 1
    counts = {"kl": tokens, "cosine": tokens, "lm_loss": predicted}
    return {name: sums[name] / counts[name] for name in METRICS}


# A child without its first attention and with narrower FFNs, but for the layer not searched.
CHILD = {0: (3, 1), 2: (0, 1)}


@pytest.fixture(scope="module")
def around(parent, space) -> list:
    """The blocks of a child to score around."""
    blocks = list(parent.blocks)
    for layer, (a, f) in CHILD.items():
        blocks[layer] = BlockOption(space[layer].attention[a], space[layer].ffn[f])
    return blocks


@pytest.fixture(scope="module")
def plain(parent, space, library, rows) -> dict[tuple[int, int, int], dict[str, float]]:
    """Metrics of every replacement by (layer, attention option, FFN option)."""
    found = {}
    for layer in (0, 2):
        options = space[layer]
        shape = (len(options.attention), len(options.ffn))
        for a, f in itertools.product(*map(range, shape)):
            block = options.blocks[a * shape[1] + f]
            found[layer, a, f] = replaced(parent, library, rows, layer, block)
    return found


def score(parent, space, library, rows, directory, **settings) -> list[LayerScores]:
    config = ScoreConfig(**settings)
    return score_library(parent.model, space, library, rows, config, directory)


@pytest.mark.parametrize("batch_tokens", [10, 200, 16_384])
def test_block_scores_equal_whole_forward_passes(
    parent, space, library, rows, plain, tmp_path, batch_tokens
):
    scores = score(parent, space, library, rows, tmp_path, batch_tokens=batch_tokens)
    for (layer, a, f), wanted in plain.items():
        for name in METRICS:
            found = scores[layer].values_AF[name][a, f]
            assert found == pytest.approx(wanted[name], abs=1e-5), (layer, a, f, name)
    assert max(abs(wanted["kl"]) for wanted in plain.values()) > 0.1  # there is something to score


def test_subblock_scores_add_the_two_halves(parent, space, library, rows, plain, tmp_path):
    scores = score(parent, space, library, rows, tmp_path, granularity="subblock")
    for layer, a, f in plain:
        for name in METRICS:
            wanted = plain[layer, a, 0][name] + plain[layer, 0, f][name]
            assert scores[layer].values_AF[name][a, f] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [10, 16_384])
@pytest.mark.parametrize("granularity", ["block", "subblock"])
def test_scores_around_a_child_are_what_one_more_replacement_changes(
    parent, space, library, rows, around, tmp_path, granularity, batch_tokens
):
    """KL(parent || changed child) - KL(parent || child), from whole forward passes."""
    child = realise_child(parent.model, around, library)
    config = ScoreConfig(granularity=granularity, batch_tokens=batch_tokens)
    scores = score_library(child, space, library, rows, config, tmp_path, parent=parent.model)
    base = replaced(parent, library, rows, 0, around[0], around)
    for layer, (own_a, own_f) in CHILD.items():
        found = scores[layer].values_AF
        options = space[layer]
        for (a, attention), (f, ffn) in itertools.product(
            enumerate(options.attention), enumerate(options.ffn)
        ):
            if granularity == "subblock" and own_a != a and own_f != f:
                for name in METRICS:
                    wanted = found[name][a, own_f] + found[name][own_a, f]
                    assert found[name][a, f] == pytest.approx(wanted, abs=1e-12)
                continue
            block = BlockOption(attention, ffn)
            wanted = replaced(parent, library, rows, layer, block, around)
            for name in METRICS:
                assert found[name][a, f] == pytest.approx(wanted[name] - base[name], abs=1e-5)
        assert all(found[name][own_a, own_f] == 0 for name in METRICS)
    # Giving the child its attention back brings it nearer to the parent.
    assert scores[0].values_AF["kl"].min() < -0.01


@pytest.mark.parametrize("granularity", ["block", "subblock"])
def test_the_parents_pair_scores_zero_and_unsearched_layers_have_no_other(
    parent, space, library, rows, tmp_path, granularity
):
    scores = score(parent, space, library, rows, tmp_path, granularity=granularity)
    assert len(scores) == 3
    for layer in scores:
        assert all(layer.values_AF[name][0, 0] == 0 for name in METRICS)
    assert scores[1].attention == ["kv4"] and scores[1].ffn == ["ffn48"]
    assert scores[0].attention == ["kv4", "kv1", "linear", "no_op"]
    assert (scores[0].values_AF["kl"] >= -1e-7).all()


def test_scores_are_read_as_written(parent, space, library, rows, tmp_path):
    written = score(parent, space, library, rows, tmp_path)
    for a, b in zip(written, load_scores(tmp_path), strict=True):
        assert a.to_json() == b.to_json()


def test_a_finished_layer_is_not_scored_again(parent, space, library, rows, tmp_path):
    first = score(parent, space, library, rows, tmp_path)
    (tmp_path / "layer_002.json").unlink()
    changed = json.loads((tmp_path / "layer_000.json").read_text())
    changed["kl"][0][1] = 123.0
    (tmp_path / "layer_000.json").write_text(json.dumps(changed))
    again = score(parent, space, library, rows, tmp_path)
    assert again[0].values_AF["kl"][0, 1] == 123.0
    assert again[2].to_json() == first[2].to_json()


def test_a_variant_that_is_not_finite_is_marked_and_never_chosen(
    parent, space, library, rows, tmp_path
):
    broken = Library(tmp_path / "library")
    for path in library.directory.rglob("*.safetensors"):
        target = broken.directory / path.relative_to(library.directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        tensors = load_file(path)
        if target == broken.path(2, FFNOption("mlp", 24)):
            tensors["mlp.up_proj.weight"][0, 0] = float("nan")
        save_file(tensors, target)
    scores = score(parent, space, broken, rows, tmp_path)
    i = scores[2].ffn.index("ffn24")
    for name in METRICS:
        assert np.isnan(scores[2].values_AF[name][:, i]).all()
        assert np.isfinite(np.delete(scores[2].values_AF[name], i, axis=1)).all()
    assert np.isnan(load_scores(tmp_path)[2].values_AF["kl"][0, i])  # NaN survives JSON
    pricing = Pricing(
        parent.model.config, space, Workload(1, 8), Roofline(DEVICES["h100-sxm"]), "fp32"
    )
    problem = pricing.problem(scores, "kl")
    unavailable = {
        label
        for label, there in zip(problem.options[2], problem.available[2], strict=True)
        if not there
    }
    assert unavailable == {f"{a}+ffn24" for a in scores[2].attention}


def test_scores_of_another_space_are_refused(parent, space, library, rows, tmp_path):
    from adaptive.core import UserError

    scores = score(parent, space, library, rows, tmp_path)
    other = search_space(SpaceConfig(kv_heads=[2], ffn_fractions=[0.5]), parent.blocks)
    pricing = Pricing(
        parent.model.config, other, Workload(1, 8), Roofline(DEVICES["h100-sxm"]), "fp32"
    )
    with pytest.raises(UserError, match="scores of layer 0 are of another search space"):
        pricing.problem(scores, "kl")


def test_inversions_are_found_by_hand():
    def table(kl: list[list[float]]) -> LayerScores:
        labels = ["kv4", "kv2", "kv1", "linear", "no_op"], ["ffn48", "ffn24", "ffn8", "no_op"]
        return LayerScores(*labels, {"kl": np.array(kl)})

    nan = float("nan")
    rest = [[9.0] * 4] * 4
    columns = [[0.0, 3.0, 1.0, 0.5]] + [
        [x, *row[1:]] for x, row in zip([0.25, 0.125, 0.0, 0.0], rest, strict=True)
    ]
    monotone = [[0.0, 1.0, 2.0, 0.0]] + [[x, 0, 0, 0] for x in (1.0, 2.0, 0.0, 0.0)]
    missing = [[0.0, nan, 2.0, 0.0]] + [[x, 0, 0, 0] for x in (1.0, nan, 0.0, 0.0)]
    found = list(inversions([table(monotone), table(columns), table(missing)]))
    # Steps to linear and no-op are no rungs of a ladder.
    assert found == [
        Inversion(1, "kv2", "kv1", 0.125),
        Inversion(1, "ffn24", "ffn8", 2.0),
    ]
