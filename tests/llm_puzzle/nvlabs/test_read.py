"""A library that is not what it should be is refused in one sentence that says where."""

from __future__ import annotations

import json
import math
from pathlib import Path

import nvlabs_like
import pytest

from adaptive.core import UserError
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.nvlabs.read import FILES, read_released

NAMES = ("measurement_info.json", "block_library.json", "parent_block_stats.json")
SECOND = nvlabs_like.text(2, 768, 75)


def test_the_names_of_variants_are_written_as_theirs_are():
    shape = nvlabs_like.LLAMA_70B
    assert list(nvlabs_like.make(shape)["block_library.json"]["layer_0"])[1] == (
        "attention = 8 kv heads (parent * 100%)\t&&\tffn = intermediate size 22e3 (parent * 75%)"
    )


def test_all_numbers_are_read(tmp_path):
    content = nvlabs_like.make()
    library = read_released(str(nvlabs_like.write(tmp_path, content)))
    assert (library.batch, library.seq_len) == (256, 1200)
    assert (library.gpu, library.dtype) == ("made-up GPU", "fp8")
    assert list(library.layers) == [0, 1, 2, 3]
    for i, variants in library.layers.items():
        entries = list(content["block_library.json"][f"layer_{i}"].values())
        assert len(variants) == len(entries) == 16
        for variant, entry in zip(variants, entries, strict=True):
            stats = entry["stats"]
            assert variant.block.attention.kv_heads == stats["num_kv_heads"]
            assert variant.block.ffn.width == stats["ffn_intermediate_size"]
            assert variant.memory_mib == stats["memory_mib"]
            assert variant.runtime_ms == stats["runtime_ms"]
            assert variant.params == stats["num_params"]
            assert variant.metrics == entry["metrics"]
    last = library.layers[3][-1]
    assert last.block.label == "no_op+no_op" and last.runtime_ms == 0
    assert library.parent.block == BlockOption(AttentionOption("gqa", 2), FFNOption("mlp", 1024))


def test_layers_are_ordered_by_their_number_not_their_place(tmp_path):
    content = nvlabs_like.make()
    layers = content["block_library.json"]
    content["block_library.json"] = {name: layers[name] for name in reversed(layers)}
    library = read_released(str(nvlabs_like.write(tmp_path, content)))
    assert list(library.layers) == [0, 1, 2, 3]
    for i, variants in library.layers.items():
        first = layers[f"layer_{i}"][SECOND]["metrics"]["kl_div"]
        assert variants[1].metrics["kl_div"] == first


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null"])
def test_a_metric_that_is_not_finite_is_read_as_such(tmp_path, value):
    content = nvlabs_like.make()
    content["block_library.json"]["layer_1"][SECOND]["metrics"]["kl_div"] = "HERE"
    text = json.dumps(content["block_library.json"]).replace('"HERE"', value)
    directory = nvlabs_like.write(tmp_path, content | {"block_library.json": text})
    variant = read_released(str(directory)).layers[1][1]
    assert not math.isfinite(variant.metrics["kl_div"])
    assert math.isfinite(variant.metrics["lm_loss"])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path, name):
    assert name in FILES
    (nvlabs_like.write(tmp_path) / name).unlink()
    with pytest.raises(UserError, match=rf"library\.path=.* holds no {name}: give"):
        read_released(str(tmp_path))


def test_a_directory_that_is_not_there_lacks_all(tmp_path):
    with pytest.raises(UserError, match="holds no measurement_info.json and no block_library.json"):
        read_released(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff{"])
def test_what_is_no_json_object_is_named(tmp_path, name, text):
    directory = nvlabs_like.write(tmp_path, nvlabs_like.make() | {name: text})
    with pytest.raises(
        UserError, match=rf"library\.path: {name} (cannot be read as|holds no) JSON"
    ):
        read_released(str(directory))


STATS = {
    "runtime_ms": (-1.0, "runtime_ms is -1.0, it must be finite and not negative"),
    "memory_mib": (-0.5, "memory_mib is -0.5, it must be finite and not negative"),
    "num_params": (1.5, "num_params is 1.5, it must be a whole number"),
    "num_kv_heads": ("8", "num_kv_heads is '8' and no number"),
    "ffn_intermediate_size": (None, "ffn_intermediate_size is missing"),
}


@pytest.mark.parametrize("key", STATS)
def test_a_wrong_number_is_named_with_its_place(tmp_path, key):
    value, words = STATS[key]
    content = nvlabs_like.make()
    content["block_library.json"]["layer_2"][SECOND]["stats"][key] = value
    with pytest.raises(UserError) as caught:
        read_released(str(nvlabs_like.write(tmp_path, content)))
    message = str(caught.value)
    assert f"layer_2, {' '.join(SECOND.split())}, stats: {words}" in message
    assert "\n" not in message and "\t" not in message


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_cost_that_is_not_finite_is_refused(tmp_path, value):
    content = nvlabs_like.make()
    content["parent_block_stats.json"]["stats"]["runtime_ms"] = "HERE"
    text = json.dumps(content["parent_block_stats.json"]).replace('"HERE"', value)
    directory = nvlabs_like.write(tmp_path, content | {"parent_block_stats.json": text})
    with pytest.raises(
        UserError, match=r"parent_block_stats\.json, stats: runtime_ms is (nan|inf)"
    ):
        read_released(str(directory))


def broken_batch(content):
    content["measurement_info.json"]["batch_size"] = 0


def broken_length(content):
    del content["measurement_info.json"]["sequence_length"]


def no_stats(content):
    del content["block_library.json"]["layer_0"][SECOND]["stats"]


def no_object(content):
    content["block_library.json"]["layer_0"][SECOND] = 3


def no_layer(content):
    content["block_library.json"]["layer_01"] = {}


def twice(content):
    layer = content["block_library.json"]["layer_3"]
    layer["again"] = layer[SECOND]


def text_for_metric(content):
    content["block_library.json"]["layer_0"][SECOND]["metrics"]["kl_div"] = "low"


BROKEN = {
    broken_batch: "measurement_info.json: batch_size is 0, it must be a whole number >= 1",
    broken_length: "measurement_info.json: sequence_length is missing",
    no_stats: "75%): stats is missing",
    no_object: "75%) is no JSON object",
    no_layer: "'layer_01' is not the name of a layer",
    twice: "layer_3: kv2+ffn768 is listed twice",
    text_for_metric: "metrics: kl_div is 'low' and no number",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_other_damage_is_one_sentence(tmp_path: Path, damage):
    content = nvlabs_like.make()
    damage(content)
    with pytest.raises(UserError) as caught:
        read_released(str(nvlabs_like.write(tmp_path, content)))
    assert BROKEN[damage] in str(caught.value) and "\n" not in str(caught.value)
