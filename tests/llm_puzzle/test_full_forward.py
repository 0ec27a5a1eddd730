"""The plain loop measures what scores say, and is timed for all rows."""

from __future__ import annotations

import pytest
import torch
from tiny_puzzle import library_of

from adaptive.llm_puzzle import full_forward
from adaptive.llm_puzzle.full_forward import full_forward_seconds
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.score import ScoreSpeed, replacements, score_library
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space

SPACE = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=[0, 2])


@pytest.fixture(scope="module")
def space(parent):
    return search_space(SPACE, parent.blocks)


@pytest.fixture(scope="module")
def library(parent, space, rows, tmp_path_factory) -> Library:
    return library_of(
        parent,
        space,
        rows,
        tmp_path_factory.mktemp("library"),
        DistillConfig(init="paper", tokens=0),
    )


@torch.inference_mode()
def test_the_plain_loop_finds_the_scores(parent, space, library, rows, tmp_path):
    scores = score_library(parent.model, space, library, rows, ScoreConfig(), tmp_path)
    parent_BTH = parent.model.model(rows.ids_NT, use_cache=False).last_hidden_state
    width = len(space[2].ffn)
    for layer, pair in ((0, (1, 1)), (2, (2, 0)), (2, (0, width - 1))):
        block = space[layer].blocks[pair[0] * width + pair[1]]
        whole = full_forward._layer(parent.model, library, layer, block)
        own = parent.model.model.layers[layer]
        kl, loss = full_forward._replacement(parent.model, layer, whole, rows, parent_BTH)
        assert parent.model.model.layers[layer] is own
        values = {name: table[pair] for name, table in scores[layer].values_AF.items()}
        assert kl / rows.tokens == pytest.approx(values["kl"], abs=1e-5)
        assert loss / (rows.tokens - len(rows)) == pytest.approx(values["lm_loss"], abs=1e-5)


def test_its_time_is_for_all_rows(parent, space, library, rows, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(full_forward, "_now", lambda model: float(next(clock)))
    whole = full_forward_seconds(parent.model, space, library, rows, 10_000)
    assert whole == pytest.approx(1.0)
    some = full_forward_seconds(parent.model, space, library, rows, 4 * rows.ids_NT.shape[1])
    assert some == pytest.approx(rows.tokens / int(rows.lengths_N[:4].sum()))
    nothing = search_space(SpaceConfig(layers=[]), parent.blocks)
    assert full_forward_seconds(parent.model, nothing, library, rows, 100) is None


@pytest.mark.parametrize(("granularity", "pairs"), [("block", 15), ("subblock", 6)])
def test_replacements_and_seconds_are_counted(
    parent, space, library, rows, tmp_path, granularity, pairs
):
    speed, config = ScoreSpeed(), ScoreConfig(granularity=granularity)
    score_library(parent.model, space, library, rows, config, tmp_path, speed=speed)
    assert speed.replacements == 2 * pairs == replacements(space, granularity)
    assert speed.seconds > 0
    before = speed.seconds
    score_library(parent.model, space, library, rows, config, tmp_path, speed=speed)
    assert (speed.replacements, speed.seconds) == (2 * pairs, before)  # nothing was left to do
