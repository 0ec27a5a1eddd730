"""GGUF files: every weight and token back, and the child's logits by llama.cpp's own steps."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
import torch
from deci_reader import Deci
from hypothesis import HealthCheck, given, settings
from tiny_children import layers, random_child
from tiny_puzzle import LINEAR, NO_OP, gqa, mlp
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.export import EXPORTS
from adaptive.llm_puzzle.export.gguf_file import rope_factors
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import load_parent

MIXED = [(gqa(4), mlp(48)), (LINEAR, mlp(8)), (NO_OP, mlp(256)), (gqa(1), NO_OP), (NO_OP, NO_OP)]
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.linear_attn": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def exported(child: PuzzleForCausalLM, folder: Path) -> Deci:
    save_child(child, None, folder / "child")
    EXPORTS["gguf"].write(folder / "child", folder / "gguf" / "model.gguf")
    assert [path.name for path in (folder / "gguf").iterdir()] == ["model.gguf"]
    return Deci(folder / "gguf" / "model.gguf")


def theirs(name: str) -> str:
    """llama.cpp's name of one of our weights."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def undone(name: str, weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of queries and keys in Llama's order again: the even ones of a head, then the odd."""
    if "attn_q." not in name and "attn_k." not in name:
        return weight
    heads = weight.unflatten(0, (-1, head_dim))
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], 1).flatten(0, 1)


def check_weights(file: Deci, child: PuzzleForCausalLM) -> None:
    state = dict(child.state_dict())
    if child.config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert {theirs(name) for name in state} == set(file.tensors) - {"rope_freqs.weight"}
    for name, weight in state.items():
        found = undone(theirs(name), file.tensors[theirs(name)], child.config.head_dim)
        assert torch.equal(found.float(), weight.float()), name


def check_logits(file: Deci, child: PuzzleForCausalLM, atol: float = 2e-5) -> None:
    ids = torch.randint(3, child.config.vocab_size, (11,), generator=torch.manual_seed(5))
    logits = child(ids[None]).logits[0]
    torch.testing.assert_close(file.logits(ids), logits, rtol=1e-4, atol=atol)


@given(chosen=layers)
@settings(
    max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_every_child_comes_back_or_is_refused_with_the_layer(chosen, tmp_path):
    child = random_child(chosen)
    linear = [i for i, (_, ffn) in enumerate(chosen) if ffn == LINEAR]
    if linear:
        with pytest.raises(UserError, match=rf"GGUF.*layer {linear[0]}: a linear FFN is not known"):
            exported(child, tmp_path)
        return
    file = exported(child, tmp_path)
    check_weights(file, child)
    check_logits(file, child)


CHANGES = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "llama3": {"rope_parameters": LLAMA3},
    "linear scaling": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    },
    "biases": {"qkv_bias": True, "mlp_bias": True},
    "large heads": {"head_dim": 16},
}


@pytest.mark.parametrize("change", CHANGES)
def test_logits_by_llama_cpps_steps_are_the_childs(change, tmp_path):
    child = random_child(MIXED, **CHANGES[change])
    file = exported(child, tmp_path)
    check_weights(file, child)
    check_logits(file, child)
    assert file.number("attention.head_count") == [4, 4, 0, 4, 0]
    assert file.number("attention.head_count_kv") == [4, 0, 0, 1, 0]
    assert file.number("feed_forward_length") == [48, 8, 256, 0, 0]
    assert ("rope_freqs.weight" in file.tensors) == (change == "llama3")
    assert file.fields["tokenizer.ggml.model"] == "none"


@pytest.mark.parametrize(
    ("dtype", "kind", "number"),
    [(torch.float32, "F32", 0), (torch.float16, "F16", 1), (torch.bfloat16, "BF16", 32)],
)
def test_types_are_kept_and_vectors_single(dtype, kind, number, tmp_path):
    child = random_child(MIXED, dtype)
    file = exported(child, tmp_path)
    check_weights(file, child)
    assert file.fields["general.file_type"] == number  # llama.cpp's LLAMA_FTYPE
    for name, found in file.kinds.items():
        assert found == (kind if file.tensors[name].ndim == 2 else "F32")


def test_llama3_factors_are_what_transformers_divides_by():
    rope = LLAMA3 | {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    config = random_child(MIXED, rope_parameters=rope, head_dim=64).config
    found, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 5e5 ** -(torch.arange(0, 64, 2).double() / 64)
    factors = rope_factors(config)
    assert factors is not None and factors.min() == 1 and factors.max() == 8
    torch.testing.assert_close(
        (plain / torch.from_numpy(factors)).float(), found, rtol=1e-5, atol=0
    )


REFUSED = {
    "qk_norm": ({"qk_norm": True}, "norms on queries and keys"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act=gelu is not among silu"),
    "scaling": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rotary scaling of kind dynamic",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_gguf_cannot_say_is_refused_and_leaves_no_file(case, tmp_path):
    changes, words = REFUSED[case]
    save_child(random_child(MIXED, **changes), None, tmp_path / "child")
    with pytest.raises(UserError, match=words):
        EXPORTS["gguf"].write(tmp_path / "child", tmp_path / "out" / "model.gguf")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_windows_are_refused(tmp_path):
    save_child(random_child([(gqa(4), mlp(8)), (gqa(4, 5), mlp(8))]), None, tmp_path / "child")
    with pytest.raises(UserError, match="layer 1: the sliding window of 5 tokens"):
        EXPORTS["gguf"].write(tmp_path / "child", tmp_path / "model.gguf")


def test_without_the_package_the_extra_is_named(monkeypatch, parent_dir):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[gguf\]'"):
        EXPORTS["gguf"].prepare(parent_dir)


def test_the_zoo_model_speaks_alike(tmp_path):
    directory = zoo.path("llama-tiny")
    EXPORTS["gguf"].write(directory, tmp_path / "model.gguf")
    loaded = load_parent("zoo:llama-tiny", torch.device("cpu"), torch.float32)
    file = Deci(tmp_path / "model.gguf")
    check_weights(file, loaded.model)
    check_logits(file, loaded.model, atol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("name", ["stories260K", "babyllama_tok105"])
def test_real_models_speak_alike(name, data_dir, tmp_path):
    directory = data_dir / "lm" / name
    EXPORTS["gguf"].write(directory, tmp_path / "model.gguf")
    loaded = load_parent(str(directory), torch.device("cpu"), torch.float32)
    file = Deci(tmp_path / "model.gguf")
    check_weights(file, loaded.model)
    check_logits(file, loaded.model, atol=1e-3)
