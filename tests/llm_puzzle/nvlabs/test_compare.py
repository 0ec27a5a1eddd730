"""Layers of a published child among the variants of a library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import nvlabs_like
import pytest

from adaptive.core import UserError, Workload, solve
from adaptive.core.cost import MODELS
from adaptive.llm_puzzle.nvlabs.compare import match
from adaptive.llm_puzzle.nvlabs.options import options, problem
from adaptive.llm_puzzle.nvlabs.read import read_released
from adaptive.llm_puzzle.plan import from_shape

MODEL = from_shape(nvlabs_like.SHAPE)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    return options(read_released(str(nvlabs_like.write(tmp_path_factory.mktemp("l")))), MODEL)


@pytest.fixture
def arch(tmp_path):
    """Writes a child of (KV heads, width) pairs and returns its path."""

    def write(*pairs: tuple[int, int], hidden: int = 256) -> str:
        halves = [
            {
                "attention": {"no_op": not kv, "n_heads_in_group": 4 // kv if kv else None},
                "ffn": {"no_op": not width, "intermediate_size": width or None},
            }
            for kv, width in pairs
        ]
        content = {
            "model_type": "nemotron-nas",
            "hidden_size": hidden,
            "num_attention_heads": 4,
            "vocab_size": 512,
            "num_hidden_layers": len(pairs),
            "max_position_embeddings": 4096,
            "block_configs": halves,
        }
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


def test_every_layer_of_the_published_child_is_a_variant(tmp_path):
    """Of a library of its parent with the shares of the released one."""
    shape = nvlabs_like.LLAMA_70B
    directory = nvlabs_like.write(tmp_path, nvlabs_like.make(shape))
    found = options(read_released(str(directory)), from_shape(shape))
    matched = match("super_49b", found, from_shape(shape))
    assert matched.missing == matched.approximate == [] and matched.layers == list(range(80))
    published = MODELS["nemotron-super-49b"]
    for i, k in enumerate(matched.choice_G):
        block = found[i][k].block
        assert block.attention.kv_heads == published.kv_heads[i]
        assert block.ffn.width == published.intermediate[i]


def test_a_width_that_is_not_listed_is_the_nearest_of_its_kind(layers, arch):
    matched = match(arch((2, 1024), (2, 700), (0, 800), (0, 0)), layers, MODEL)
    labels = [layers[i][k].block.label for i, k in enumerate(matched.choice_G)]
    assert labels == ["kv2+ffn1024", "kv2+ffn640", "no_op+ffn768", "no_op+no_op"]
    assert matched.approximate == [
        "layer 1 (kv2+ffn700 as kv2+ffn640)",
        "layer 2 (no_op+ffn800 as no_op+ffn768)",
    ]
    assert matched.missing == []


def test_what_no_variant_stands_for_is_missing(layers, arch):
    """Other KV heads; a width more than 10 % off; a no-op is no narrow FFN."""
    matched = match(arch((1, 1024), (2, 900), (2, 512), (2, 8)), layers, MODEL)
    assert matched.missing == [
        "layer 0 (kv1+ffn1024)",
        "layer 1 (kv2+ffn900)",
        "layer 3 (kv2+ffn8)",
    ]
    assert matched.layers == [2] and len(matched.choice_G) == 1


def test_a_linear_replacement_is_no_no_op(layers, arch):
    path = arch((2, 1024), (2, 0), (2, 0), (0, 1024))
    content = json.loads(Path(path).read_text())
    content["block_configs"][1]["ffn"] = {"replace_with_linear": True}
    content["block_configs"][3]["attention"] = {"replace_with_linear": True}
    Path(path).write_text(json.dumps(content))
    matched = match(path, layers, MODEL)
    assert matched.missing == ["layer 1 (kv2+linear)", "layer 3 (linear+ffn1024)"]


def test_missing_layers_are_out_of_both_sides(layers, arch):
    whole = problem(layers, "kl", Workload(4, 100))
    matched = match(arch((1, 1024), (2, 512), (0, 256), (2, 8)), layers, MODEL)
    part = matched.problem(whole)
    assert part.groups == ("layer 1", "layer 2") and part.workload == whole.workload
    for name, cost in whole.cost.items():
        assert np.array_equal(part.cost[name], cost[1:3])
    assert np.array_equal(part.loss, whole.loss[1:3])
    found = solve(part, matched.budget(part), gap=0.0)
    assert found.loss <= part.total_loss(matched.choice_G)


def test_a_child_without_gaps_is_priced_on_the_whole_problem(layers, arch):
    whole = problem(layers, "kl", Workload(4, 100))
    matched = match(arch((2, 1024), (2, 512), (0, 256), (0, 0)), layers, MODEL)
    assert matched.problem(whole) is whole


@pytest.mark.parametrize(
    ("pairs", "hidden", "words"),
    [
        ([(2, 1024)] * 3, 256, "has 3 layers of width 256, the library's parent 4 of 256"),
        ([(2, 1024)] * 4, 512, "has 4 layers of width 512, the library's parent 4 of 256"),
        ([(1, 1024)] * 4, 256, "none of its layers is in the library"),
    ],
)
def test_a_child_of_another_parent_is_refused(layers, arch, pairs, hidden, words):
    with pytest.raises(UserError, match=words):
        match(arch(*pairs, hidden=hidden), layers, MODEL)
