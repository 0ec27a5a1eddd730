"""Engines and formats as data: rows of the table, reasons, and laws that bind them together."""

from __future__ import annotations

import pytest
from hypothesis import given
from tiny_children import config_of, layers
from tiny_puzzle import LINEAR, NO_OP, gqa, mlp

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.export import ENGINES, EXPORTS
from adaptive.llm_puzzle.export.compatibility import compatibility
from adaptive.llm_puzzle.export.hf import per_layer_config

A, F = gqa(4), mlp(256)

# What each engine says of a child: reasons in its order, none if it loads. From the loaders' code.
CASES: dict[str, tuple[list[tuple[dict, dict]], dict[str, list[str]]]] = {
    "a Llama": ([(A, F), (A, F)], {}),
    "KV heads vary": (
        [(A, F), (gqa(2), F)],
        {"sglang": ["layer 1: 2 KV heads differ from the 4 of layer 0"]},
    ),
    "attention missing": ([(A, F), (NO_OP, F)], {}),
    "attention missing first": (
        [(NO_OP, F), (A, F)],
        {
            name: ["layer 0: the first layer has to have attention"]
            for name in ("vllm", "sglang", "llama.cpp")
        },
    ),
    "FFN missing": (
        [(A, NO_OP), (A, F)],
        {"llama.cpp": ["layer 0: attention without an FFN is dropped silently"]},
    ),
    "layer missing": ([(A, F), (NO_OP, NO_OP), (A, F)], {}),
    "last layer missing": (
        [(A, F), (NO_OP, NO_OP)],
        {"llama.cpp": ["layer 1: the last layer has to have an FFN"]},
    ),
    "linear attention": (
        [(A, F), (LINEAR, F)],
        {name: ["layer 1: linear attention is not known"] for name in ("vllm", "sglang", "mlx-lm")},
    ),
    "linear FFN": (
        [(A, F), (A, LINEAR)],
        {
            name: ["layer 1: a linear FFN is not known"]
            for name in ("vllm", "sglang", "mlx-lm", "llama.cpp")
        },
    ),
    "odd width": (
        [(A, F), (A, mlp(172))],
        {
            name: ["layer 1: FFN width 172 is not a multiple of 256"]
            for name in ("sglang", "tensorrt-llm", "mlx-lm")
        },
    ),
    "nobody attends": (
        [(LINEAR, F)],
        {
            "vllm": ["layer 0: linear attention is not known", "no layer attends"],
            "sglang": ["layer 0: linear attention is not known", "no layer attends"],
            "mlx-lm": ["layer 0: linear attention is not known"],
        },
    ),
    "a window": (
        [(A, F), (gqa(4, 5), F)],
        {
            name: ["layer 1: the sliding window of 5 tokens is not known"]
            for name in ENGINES
            if name != "transformers"
        },
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_what_an_engine_says_of_a_child(case, engine):
    chosen, expected = CASES[case]
    assert list(ENGINES[engine].rules.reasons(config_of(chosen))) == expected.get(engine, [])


PARENTS = {
    "Qwen 3": ({"qk_norm": True}, set(), "norms on queries and keys are not known"),
    "Qwen 2": ({"qkv_bias": True}, {"llama.cpp"}, "biases of some but not all projections"),
    "biased attention": (
        {"qkv_bias": True, "o_bias": True},
        {"vllm", "sglang", "llama.cpp", "mlx-lm"},
        "biases of attention are not known",
    ),
    "biased FFN": (
        {"mlp_bias": True},
        {"vllm", "llama.cpp", "mlx-lm"},
        "biases of the FFN are not known",
    ),
    "gelu": ({"hidden_act": "gelu"}, {"mlx-lm"}, "hidden_act=gelu is not among silu"),
    "large heads": (
        {"head_dim": 16},
        {"vllm", "sglang", "llama.cpp", "tensorrt-llm"},
        "heads times head_dim is 64 and not hidden_size=32",
    ),
}


@pytest.mark.parametrize("case", PARENTS)
def test_what_engines_say_of_a_parent(case):
    changes, able, words = PARENTS[case]
    config = config_of([(A, F)], **changes)
    for name, engine in ENGINES.items():
        reason = engine.rules.model(config)
        if name in able | {"transformers"}:
            assert reason is None
        else:
            assert reason is not None and words in reason


@given(chosen=layers)
def test_rows_agree_with_rules_and_name_a_layer(chosen):
    config = config_of(chosen)
    rows = {row.engine: row for row in compatibility(config, ["hf"])}
    assert list(rows) == list(ENGINES)
    for name, row in rows.items():
        engine = ENGINES[name]
        readable = not list(EXPORTS[engine.export].rules.reasons(config))
        runs = not list(engine.rules.reasons(config))
        assert row.loads == (readable and runs and not engine.strict_ffn)
        assert row.loads == (not row.reasons)
        assert row.written == (row.export == "hf")
        assert row.answer.startswith("yes" if row.loads else "no: ")
    assert rows["transformers"].loads and rows["transformers"].answer == "yes"


def test_a_row_says_what_to_add_and_how_many_reasons_there_are():
    rows = {r.engine: r for r in compatibility(config_of([(A, F), (A, F)]), ["hf"])}
    assert rows["vllm"].answer == "yes, with nemotron_nas in export"
    assert "search.portable=mlx-lm leaves it out" in rows["mlx-lm"].answer
    rows = {r.engine: r for r in compatibility(config_of([(A, F)]), ["nemotron_nas"], "mlx-lm")}
    assert rows["mlx-lm"].answer == rows["vllm"].answer == "yes"
    config = config_of([(A, mlp(8)), (A, mlp(16))])
    answer = {r.engine: r for r in compatibility(config, [])}["sglang"].answer
    assert answer == "no: layer 0: FFN width 8 is not a multiple of 256 (and 1 more)"


@given(chosen=layers)
def test_transformers_reads_per_layer_config(chosen):
    """A Llama configuration takes it, and says of every layer what we say."""
    from transformers import LlamaConfig

    blocks = [BlockOption.from_config({"attention": a, "ffn": f}) for a, f in chosen]
    entries = per_layer_config(blocks)
    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=len(blocks),
        per_layer_config=entries,
    )
    for layer, block in zip(config.per_layer_config, blocks, strict=True):
        assert ("attention" in layer.skip) == (block.attention.kind == "no_op")
        assert ("mlp" in layer.skip) == (block.ffn.kind == "no_op")
        if block.attention.kind == "gqa":
            assert layer.num_key_value_heads == block.attention.kv_heads
        if block.ffn.kind == "mlp":
            assert layer.intermediate_size == block.ffn.width
        for half, option in (("attention", block.attention), ("mlp", block.ffn)):
            assert (half in getattr(layer, "linear", [])) == (option.kind == "linear")
