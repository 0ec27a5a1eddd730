"""Published children: by name, and from a config.json of model_type nemotron-nas."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import adaptive
from adaptive.core import UserError, Workload
from adaptive.core.cost import MODELS, Roofline
from adaptive.core.hardware import detect
from adaptive.llm_puzzle.arch import ARCHITECTURES, architecture, price
from adaptive.llm_puzzle.export.deci_config import from_deci
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.shapes import stack

# Parameters of the published checkpoints.
PARAMS = {"super_49b": 49_867_145_216, "ultra_253b": 253_401_268_224}


def half_configs(kv_heads: int, width: int, hidden: int, heads: int, form: str) -> dict[str, Any]:
    """An entry of ``block_configs``, the FFN as a multiple or in full."""
    attention = {"n_heads_in_group": heads // kv_heads if kv_heads else None}
    ffn: dict[str, Any] = {"no_op": not width, "replace_with_linear": False, "sparsify": None}
    if width and form == "ffn_mult":
        ffn["ffn_mult"] = 3 * width / (2 * hidden)
    elif width:
        ffn["intermediate_size"] = width
    return {"attention": attention | {"no_op": not kv_heads, "replace_with_linear": False}} | {
        "ffn": ffn
    }


def nemotron_nas(shape: Any, form: str) -> dict[str, Any]:
    """A published model's ``config.json``, from its shape."""
    return {
        "model_type": "nemotron-nas",
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "intermediate_size": None,
        "num_key_value_heads": None,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
        "block_configs": [
            half_configs(kv, width, shape.hidden, shape.heads, form)
            for kv, width in zip(shape.kv_heads, shape.intermediate, strict=True)
        ],
    }


@pytest.fixture
def small(tmp_path):
    """A small configuration, and a function that writes it and gives its path."""
    content: dict[str, Any] = {
        "model_type": "nemotron-nas",
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "block_configs": [
            half_configs(2, 512, 256, 4, "ffn_mult"),
            half_configs(0, 200, 256, 4, "intermediate_size"),
            half_configs(4, 0, 256, 4, "ffn_mult"),
        ],
    }

    def write() -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(content))
        return str(path)

    return content, write


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_published_child_has_the_parameters_of_its_checkpoint(name):
    assert stack(architecture(name)).params() == PARAMS[name]


@pytest.mark.parametrize("form", ["ffn_mult", "intermediate_size"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_its_configuration_file_says_the_same(tmp_path, name, form):
    shape = MODELS[ARCHITECTURES[name]]
    (tmp_path / "config.json").write_text(json.dumps(nemotron_nas(shape, form)))
    for path in (tmp_path, tmp_path / "config.json"):
        model = architecture(str(path))
        assert model.blocks == architecture(name).blocks
        assert stack(model).params() == PARAMS[name]


@pytest.mark.parametrize(
    ("multiple", "width"), [(5.25, 28672), (3.28125, 17920), (1.0, 5632), (0.5, 2816)]
)
def test_multiples_as_published_are_the_published_widths(small, multiple, width):
    """Of Super-49B's config.json: two thirds of a multiple of 8192, up to the next 256."""
    content, write = small
    content["hidden_size"], content["num_attention_heads"] = 8192, 64
    content["block_configs"] = [half_configs(8, 256, 8192, 64, "ffn_mult")] * 3
    content["block_configs"][1]["ffn"]["ffn_mult"] = multiple
    assert architecture(write()).blocks[1]["ffn"]["intermediate_size"] == width


@given(st.integers(1, 1700).map(lambda n: 256 * n), st.integers(4, 128).map(lambda n: 128 * n))
def test_every_width_of_256s_survives_its_multiple(width, hidden):
    content = {
        "hidden_size": hidden,
        "num_attention_heads": 8,
        "vocab_size": 16,
        "max_position_embeddings": 16,
        "block_configs": [half_configs(1, width, hidden, 8, "ffn_mult")],
    }
    assert from_deci(content, "x").blocks[0]["ffn"]["intermediate_size"] == width


def test_a_file_is_the_model_that_it_describes(small):
    content, write = small
    content["block_configs"].append(
        {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}}
    )
    content["num_hidden_layers"] = 4
    model = architecture(write())
    assert [(b["attention"], b["ffn"]) for b in model.blocks] == [
        ({"kind": "gqa", "num_key_value_heads": 2}, {"kind": "mlp", "intermediate_size": 512}),
        ({"kind": "no_op"}, {"kind": "mlp", "intermediate_size": 200}),
        ({"kind": "gqa", "num_key_value_heads": 4}, {"kind": "no_op"}),
        ({"kind": "linear"}, {"kind": "linear"}),
    ]
    with torch.device("meta"):
        built = PuzzleForCausalLM(model)
    assert stack(model).params() == sum(weight.numel() for weight in built.parameters())


WRONG = {
    "model_type": ({"model_type": "llama"}, "has model_type 'llama': give a config.json of"),
    "blocks": ({"block_configs": []}, "has no block_configs; take the nemotron-nas config.json"),
    "layers": ({"num_hidden_layers": 2}, "has num_hidden_layers=2, but 3 block_configs"),
    "hidden": ({"hidden_size": None}, "has hidden_size=None; it must be a whole number >= 1"),
    "head_dim": ({"head_dim": "64"}, "has head_dim='64'; it must be a whole number >= 1"),
    "group": (
        {"block_configs": [{"attention": {"n_heads_in_group": 3}, "ffn": {"no_op": True}}] * 3},
        "layer 0: n_heads_in_group=3 must divide num_attention_heads=4",
    ),
    "width": (
        {"block_configs": [{"attention": {"no_op": True}, "ffn": {}}] * 3},
        "layer 0: ffn_mult=None must be above 0",
    ),
    "half": ({"block_configs": [{"attention": {"no_op": True}}] * 3}, "layer 0: lacks 'ffn'"),
    "windows": (
        {
            "block_configs": [
                {"attention": {"n_heads_in_group": 1, "window_length": w}, "ffn": {"no_op": True}}
                for w in (8, 16, 16)
            ]
        },
        "sliding windows must be of one size",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_one_sentence(small, what):
    content, write = small
    change, words = WRONG[what]
    content |= change
    with pytest.raises(UserError) as caught:
        architecture(write())
    message = str(caught.value)
    assert words in message and message.count("arch=") == 1 and "\n" not in message


def test_what_is_no_json_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"arch=.*config\.json cannot be read as JSON"):
        architecture(str(tmp_path / "config.json"))


def test_an_unknown_name_gets_those_there_are():
    words = "arch=super_48b names no config.json, and unknown architecture 'super_48b', choose "
    with pytest.raises(UserError, match=words + "one of super_49b, ultra_253b; did you mean"):
        architecture("super_48b")


def test_a_price_is_the_sum_of_weights_and_cache():
    prices = price(
        architecture("super_49b"), Workload(256, 128, 1024), "bf16", Roofline(detect("h100-sxm"))
    )
    attending = 49  # digits 8 in the published list of KV heads
    assert sum(kv > 0 for kv in MODELS["nemotron-super-49b"].kv_heads) == attending
    cache = attending * 2 * 8 * 128 * 2 * 256 * 1152
    assert prices["params"] == PARAMS["super_49b"]
    assert prices["memory"] == 2 * PARAMS["super_49b"] + cache
    assert prices["latency"] > 0


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("arch") / "run"
    return adaptive.load("puzzle_70b", "arch=super_49b").run(directory)


def test_the_recipe_prices_a_published_child_beside_its_parent(planned):
    summary = planned.summary
    assert summary["child.params"] == 49_867_145_216
    assert summary["parent.params"] == 70_553_706_496
    assert summary["child.memory"] < summary["parent.memory"]
    ratio = summary["latency.parent.bound"] / summary["latency.child.bound"]
    assert summary["speedup.bound"] == pytest.approx(ratio) and 1 < ratio < 3
    tokens = 256 * (128 + 1024)
    assert summary["throughput.child.bound"] * summary["latency.child.bound"] == pytest.approx(
        tokens
    )
    assert "Published child" in planned.report.read_text()


def test_a_child_of_another_parent_is_priced_alone(tmp_path):
    result = adaptive.load("puzzle_70b", "arch=ultra_253b").run(tmp_path / "run")
    assert result.summary["child.params"] == 253_401_268_224
    assert "speedup.bound" not in result.summary
    assert "It is no child of this run" in result.report.read_text()


def test_a_changed_file_is_priced_anew(small, tmp_path, capfd):
    content, write = small
    experiment = adaptive.load("puzzle_70b", f"arch={write()}")
    first = experiment.run(tmp_path / "run").summary
    assert experiment.run(tmp_path / "run").summary == first
    assert "[plan] done before, kept" in capfd.readouterr().err
    content["vocab_size"] = 1024
    write()
    second = experiment.run(tmp_path / "run").summary
    assert second["child.params"] == first["child.params"] + 2 * 512 * 256


@pytest.mark.parametrize("recipe", ["puzzle_tiny", "puzzle_70b"])
def test_a_run_with_weights_does_not_take_one(recipe):
    with pytest.raises(UserError, match=r"arch=super_49b is priced without weights: add plan_only"):
        adaptive.load(recipe, "arch=super_49b", "plan_only=false")


def test_the_8b_recipe_plans_the_papers_space(tmp_path):
    summary = adaptive.load("puzzle_8b").run(tmp_path / "run").summary
    assert summary["parent.params"] == 8_030_261_248  # Llama-3.1-8B
    assert summary["plan.layers"] == 32 and summary["plan.options"] == 54
    assert summary["plan.log10_architectures"] == pytest.approx(55.44, abs=0.01)  # 54^32


def test_the_8b_recipe_takes_latencies_that_were_measured(tmp_path):
    bound = adaptive.load("puzzle_8b").run(tmp_path / "bound").summary
    shipped = adaptive.load("puzzle_8b", "cost.model=shipped").run(tmp_path / "shipped").summary
    ratio = bound["latency.parent.bound"] / shipped["latency.parent.predicted"]
    assert 0.4 < ratio < 1
