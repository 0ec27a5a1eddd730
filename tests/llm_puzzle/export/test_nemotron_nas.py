"""nemotron-nas directories: round trips, published shapes, parents, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_children import layers, random_child
from tiny_puzzle import LINEAR, NO_OP, gqa, mlp

from adaptive import zoo
from adaptive.core.cost.models import decoder_shape
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.export import ENGINES, EXPORTS, configuration_decilm
from adaptive.llm_puzzle.export.deci_config import ffn_mult, from_deci, to_deci, width_of
from adaptive.llm_puzzle.export.nemotron_nas import write
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.parent import load_parent, parent_config
from adaptive.llm_puzzle.weights import Checkpoint

MIXED = [(gqa(4), mlp(48)), (LINEAR, mlp(256)), (NO_OP, LINEAR), (gqa(1), NO_OP), (NO_OP, NO_OP)]
FIELDS = {
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_parameters",
    "qkv_bias",
    "o_bias",
    "mlp_bias",
    "qk_norm",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "blocks",
}


def exported(child: PuzzleForCausalLM, folder: Path, **options: Any) -> Path:
    save_child(child, None, folder / "child")
    write(folder / "child", folder / "out", **options)
    return folder / "out"


def check_round_trip(child: PuzzleForCausalLM, directory: Path) -> None:
    config, weights = parent_config(directory), dict(Checkpoint.of(directory))
    for name in FIELDS:
        assert getattr(config, name) == getattr(child.config, name), name
    state = dict(child.state_dict())
    if child.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert set(weights) == set(state)
    for name, weight in state.items():
        assert torch.equal(weights[name], weight) and weights[name].dtype == weight.dtype


@given(chosen=layers, tied=st.booleans(), bias=st.booleans(), dtype=st.sampled_from(["f", "b"]))
@settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_every_child_comes_back_exactly(chosen, tied, bias, dtype, tmp_path):
    child = random_child(
        chosen,
        torch.bfloat16 if dtype == "b" else torch.float32,
        tie_word_embeddings=tied,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
    )
    check_round_trip(child, exported(child, tmp_path))


def test_the_config_is_what_the_readers_want(tmp_path):
    directory = exported(random_child(MIXED, torch.bfloat16), tmp_path)
    config = json.loads((directory / "config.json").read_text())
    assert config["architectures"] == ["DeciLMForCausalLM"]
    assert config["model_type"] == "nemotron-nas"
    assert config["intermediate_size"] is config["num_key_value_heads"] is None
    assert (config["hidden_size"], config["num_attention_heads"]) == (32, 4)
    assert config["num_hidden_layers"] == len(config["block_configs"]) == 5
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert config["rope_theta"] == 10000.0 and config["rope_scaling"] is None
    assert config["head_dim"] == 8 and config["tie_word_embeddings"] is False
    first, _, third, fourth, last = config["block_configs"]
    assert first["attention"] == {
        "n_heads_in_group": 1,
        "no_op": False,
        "num_sink_tokens": None,
        "replace_with_linear": False,
        "sparsify": None,
        "unshifted_sink": False,
        "use_prefill_window_in_sink_attention": False,
        "window_length": None,
    }
    assert first["ffn"] == {
        "ffn_mult": 3 * 48 / (2 * 32),
        "intermediate_size": 48,
        "no_op": False,
        "replace_with_linear": False,
        "sparsify": None,
    }
    assert third["ffn"]["replace_with_linear"] and third["ffn"]["ffn_mult"] is None
    assert fourth["attention"]["n_heads_in_group"] == 4
    assert last["attention"]["no_op"] and last["attention"]["n_heads_in_group"] is None
    assert last["ffn"]["no_op"] and last["ffn"]["ffn_mult"] is None
    assert config["per_layer_config"]["4"]["skip"] == ["attention", "mlp"]
    for target in config["auto_map"].values():
        assert (directory / f"{target.partition('.')[0]}.py").is_file()
    names = set(load_file(directory / "model.safetensors"))
    assert "model.layers.1.self_attn.linear_attn.weight" in names
    assert "model.layers.2.mlp.linear_mlp.weight" in names
    assert not any(".4." in name or name.startswith("model.layers.2.input") for name in names)


def test_llama3_scaling_is_where_either_generation_of_transformers_looks(tmp_path):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    child = random_child(MIXED, rope_parameters=rope)
    directory = exported(child, tmp_path)
    check_round_trip(child, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    assert config["rope_theta"] == 500000.0 and config["rope_scaling"]["factor"] == 8.0
    assert "rope_theta" not in config["rope_scaling"]
    del config["rope_parameters"]  # as published: before transformers 5
    assert from_deci(config, str(path)).rope_parameters == rope


def test_large_children_are_sharded_with_an_index(tmp_path):
    child = random_child(MIXED)
    directory = exported(child, tmp_path, shard_bytes=20_000)
    check_round_trip(child, directory)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    assert len(shards) > 2 and sorted(set(index["weight_map"].values())) == shards
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(4 * w.numel() for w in child.parameters())
    for shard in shards:
        tensors = load_file(directory / shard)
        nbytes = sum(4 * weight.numel() for weight in tensors.values())
        assert nbytes <= 20_000 or len(tensors) == 1
    entries = Checkpoint.of(directory).entries
    assert sum(entry.nbytes for entry in entries.values()) == index["metadata"]["total_size"]


@torch.no_grad()
def test_an_export_is_a_parent(tmp_path):
    child = random_child(MIXED)
    loaded = load_parent(str(exported(child, tmp_path)), torch.device("cpu"), torch.float32)
    ids = torch.randint(3, 60, (2, 9))
    torch.testing.assert_close(loaded.model(ids).logits, child(ids).logits, rtol=0, atol=0)
    assert [b.label for b in loaded.blocks][:2] == ["kv4+ffn48", "linear+ffn256"]


# --- published models ---


def published(name: str, tokens: int = 128_256) -> dict[str, Any]:
    """``config.json`` in the form that NVIDIA publishes: multipliers alone."""
    shape = decoder_shape(name)
    none = {"sparsify": None, "replace_with_linear": False}
    return {
        "architectures": ["DeciLMForCausalLM"],
        "model_type": "nemotron-nas",
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "intermediate_size": None,
        "num_key_value_heads": None,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": tokens,
        "eos_token_id": [128001, 128008, 128009],
        "block_configs": [
            {
                "attention": none
                | {"no_op": not kv, "n_heads_in_group": shape.heads // kv if kv else None},
                "ffn": none | {"no_op": not w, "ffn_mult": 1.5 * w / shape.hidden if w else None},
            }
            for kv, w in zip(shape.kv_heads, shape.intermediate, strict=True)
        ],
    }


def parameters(config: PuzzleModelConfig) -> int:
    with torch.device("meta"):
        model: PuzzleForCausalLM = PuzzleForCausalLM(config)
    return sum(weight.numel() for weight in model.parameters())


# Parameters: the models' safetensors on the Hugging Face hub.
@pytest.mark.parametrize(
    ("name", "count"),
    [("nemotron-super-49b", 49_867_145_216), ("nemotron-ultra-253b", 253_401_268_224)],
)
def test_published_children_have_their_number_of_parameters(name, count):
    config = from_deci(published(name), "config.json")
    assert parameters(config) == count
    again = from_deci(json.loads(json.dumps(to_deci(config, "bfloat16"))), "config.json")
    assert again.to_dict() == config.to_dict()
    assert parameters(again) == count


def test_published_multipliers():
    """Super-49B's config.json has 5.25 where the width is Llama-70B's, and 2.625 for half of it."""
    assert ffn_mult(28672, 8192) == 5.25 and width_of(5.25, 8192) == 28672
    assert ffn_mult(14336, 8192) == 2.625 and width_of(2.625, 8192) == 14336


@given(steps=st.integers(1, 2000), hidden=st.integers(64, 32768).map(lambda n: n // 64 * 64))
def test_multiples_of_256_survive_every_readers_rounding(steps, hidden):
    width = 256 * steps
    multiplier = ffn_mult(width, hidden)
    assert width_of(multiplier, hidden) == width
    assert width_of(round(multiplier, 6), hidden) == width  # mlx-lm's
    assert width_of(ffn_mult(width + 1, hidden), hidden) != width + 1


# --- mistakes ---

REFUSED = {
    "qk_norm": ({"qk_norm": True}, "norms on queries and keys are not known"),
    "qkv_bias": ({"qkv_bias": True}, "biases of some but not all projections of attention"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_decilm_cannot_express_is_refused(case, tmp_path):
    changes, words = REFUSED[case]
    with pytest.raises(UserError, match=f"nemotron-nas.*cannot express this child .{words}"):
        exported(random_child(MIXED, **changes), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["child"]


def test_windows_are_refused_with_the_layer(tmp_path):
    with pytest.raises(UserError, match="layer 1: the sliding window of 5 tokens is not known"):
        exported(random_child([(gqa(4), mlp(8)), (gqa(4, 5), mlp(8))]), tmp_path)


def first(part: str, **values: Any) -> Any:
    return lambda config: config["block_configs"][0][part].update(values)


BROKEN = {
    "no blocks": (lambda c: c.pop("block_configs"), "has no block_configs"),
    "a layer more": (lambda c: c.update(num_hidden_layers=6), "num_hidden_layers=6, but 5 block"),
    "no hidden size": (lambda c: c.pop("hidden_size"), "hidden_size=None"),
    "group of 3": (
        first("attention", n_heads_in_group=3),
        "layer 0: n_heads_in_group=3 must divide num_attention_heads=4",
    ),
    "sinks": (first("attention", num_sink_tokens=4), "layer 0: attention with num_sink_tokens"),
    "sparse": (first("ffn", sparsify=["2:4"]), "layer 0: an FFN with sparsify is not supported"),
    "no width": (first("ffn", ffn_mult=None, intermediate_size=None), "layer 0: ffn_mult=None"),
    "no FFN": (lambda c: c["block_configs"][0].pop("ffn"), "layer 0: lacks 'ffn'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_config_is_one_sentence_that_names_the_place(case, tmp_path):
    change, words = BROKEN[case]
    directory = exported(random_child(MIXED), tmp_path)
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        parent_config(directory)
    assert str(caught.value).startswith("parent: ") and "\n" not in str(caught.value)


def test_an_engine_that_takes_multipliers_alone_gets_them_alone(tmp_path):
    child = random_child([(gqa(4), mlp(256)), (gqa(2), NO_OP)])
    directory = exported(child, tmp_path, engine=ENGINES["mlx-lm"])
    check_round_trip(child, directory)
    config = json.loads((directory / "config.json").read_text())
    keys = {"ffn_mult", "no_op", "replace_with_linear", "sparsify"}
    assert all(set(block["ffn"]) == keys for block in config["block_configs"])


# --- whole models ---


def check_real(source: Path, folder: Path) -> None:
    EXPORTS["nemotron_nas"].write(source, folder / "out")
    before, after = Checkpoint.of(source), Checkpoint.of(folder / "out")
    assert set(before.entries) == set(after.entries)
    for name in before.entries:
        assert torch.equal(before[name], after[name])
    ours = load_parent(str(source), torch.device("cpu"), torch.float32)
    theirs = load_parent(str(folder / "out"), torch.device("cpu"), torch.float32)
    assert ours.tokenizer is not None and theirs.tokenizer is not None
    assert ours.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    text = "Once upon a time"
    assert ours.tokenizer(text)["input_ids"] == theirs.tokenizer(text)["input_ids"]
    assert ours.model.config.blocks == theirs.model.config.blocks


def test_the_zoo_model_comes_back(tmp_path):
    check_real(zoo.path("llama-tiny"), tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["stories260K", "babyllama_tok105"])
def test_real_models_come_back(name, data_dir, tmp_path):
    check_real(data_dir / "lm" / name, tmp_path)


def test_the_configuration_file_works_where_rope_scaling_is_a_plain_attribute():
    """As in transformers 4, whose base class stores what it is given and has no property of it."""

    class Base:
        def __init__(self, **kwargs: Any):
            vars(self).update(kwargs)

    scaling = {"rope_type": "llama3", "factor": 8.0}
    code = Path(configuration_decilm.__file__).read_text(encoding="utf-8")
    code = code.replace("from transformers import PretrainedConfig\n", "")
    scope: dict[str, Any] = {"PretrainedConfig": Base}
    exec(code, scope)
    raw = published("nemotron-super-49b") | {"rope_scaling": scaling, "per_layer_config": {}}
    config = scope["DeciLMConfig"](**raw)
    assert config.rope_theta == 500000.0 and config.rope_scaling == scaling
    assert config.rope_parameters == scaling | {"rope_theta": 500000.0}
    assert config.block_configs[0].ffn.ffn_mult == 2.625
    assert config.block_configs[6].attention.no_op is True
    assert not hasattr(config, "per_layer_config")
