"""Loading a parent, and what is said when it cannot be loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.parent import load_parent, parent_directory


def load(name: str | Path):
    return load_parent(str(name), torch.device("cpu"), torch.float32)


@pytest.fixture
def copied(parent_dir, tmp_path) -> Path:
    return Path(shutil.copytree(parent_dir, tmp_path / "copy"))


@torch.no_grad()
def test_a_directory_gives_what_transformers_loads(parent_dir, parent, tokenizer):
    theirs = AutoModelForCausalLM.from_pretrained(parent_dir).eval()
    ids = torch.randint(3, 60, (2, 9))
    torch.testing.assert_close(parent.model(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    assert parent.directory == parent_dir and len(parent.tokenizer) == len(tokenizer)
    assert not parent.model.training
    assert not any(weight.requires_grad for weight in parent.model.parameters())
    assert [block.label for block in parent.blocks] == ["kv4+ffn48"] * 3


@torch.no_grad()
def test_a_zoo_name_gives_the_zoo_model():
    loaded = load("zoo:llama-tiny")
    theirs = AutoModelForCausalLM.from_pretrained(
        zoo.path("llama-tiny"), dtype=torch.float32
    ).eval()
    ids = torch.randint(3, 2000, (1, 12))
    torch.testing.assert_close(loaded.model(ids).logits, theirs(ids).logits, rtol=0, atol=1e-4)
    assert loaded.model.dtype == torch.float32


@torch.no_grad()
def test_a_sharded_checkpoint_gives_the_same_weights(parent_dir, parent, tmp_path):
    theirs = AutoModelForCausalLM.from_pretrained(parent_dir)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2 and (tmp_path / "model.safetensors.index.json").is_file()
    loaded = load(tmp_path).model.state_dict()
    for name, weight in parent.model.state_dict().items():
        assert torch.equal(loaded[name], weight)
    shards[1].unlink()
    with pytest.raises(UserError, match=rf"{tmp_path} lacks {shards[1].name}"):
        load(tmp_path)


@torch.no_grad()
def test_dtype_is_converted(parent_dir):
    loaded = load_parent(str(parent_dir), torch.device("cpu"), torch.bfloat16)
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    # Rotary angles need single precision: bfloat16 cannot tell position 257 from 256.
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32


@torch.no_grad()
def test_rotary_frequencies_are_not_left_over_memory(parent_dir):
    theirs = AutoModelForCausalLM.from_pretrained(parent_dir)
    found = load(parent_dir).model.model.rotary_emb
    assert torch.equal(found.inv_freq, theirs.model.rotary_emb.inv_freq)


def test_no_tokenizer_is_no_error(copied):
    (copied / "tokenizer.json").unlink()
    assert load(copied).tokenizer is None


# --- mistakes ---


def rewrite(directory: Path, change: Callable[[dict], None]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def garble(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"not safetensors at all" * 100)


def reshape(directory: Path) -> None:
    rewrite(directory, lambda config: config.update(intermediate_size=40))


def drop_a_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, directory / "model.safetensors")


def pickle_only(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def bad_index(directory: Path) -> None:
    (directory / "model.safetensors.index.json").write_text("{}")


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (
        lambda d: (d / "config.json").unlink(),
        "has no config.json, so it is no model directory",
    ),
    "config cut off": (
        lambda d: (d / "config.json").write_text('{"model_type": "lla'),
        "config.json is not valid JSON",
    ),
    "config of another kind": (
        lambda d: (d / "config.json").write_text("[1, 2]"),
        "config.json describes no model: it is no object",
    ),
    "unknown to us": (
        lambda d: rewrite(d, lambda c: c.update(model_type="gpt2")),
        "unknown architecture 'gpt2', choose one of llama, mistral, qwen2, qwen3",
    ),
    "unknown to transformers": (
        lambda d: rewrite(d, lambda c: c.update(model_type="lama3")),
        "transformers cannot read",
    ),
    "no architecture": (
        lambda d: rewrite(d, lambda c: c.pop("model_type")),
        "transformers cannot read",
    ),
    "config of wrong types": (
        lambda d: rewrite(d, lambda c: c.update(hidden_size="large")),
        "'hidden_size' expected int",
    ),
    "no weights": (
        lambda d: (d / "model.safetensors").unlink(),
        "lacks model.safetensors; put the model's safetensors weights there",
    ),
    "pickled weights": (pickle_only, "lacks model.safetensors"),
    "truncated weights": (cut, "is not a readable safetensors file"),
    "garbled weights": (garble, "is not a readable safetensors file"),
    "empty weights": (
        lambda d: (d / "model.safetensors").write_bytes(b""),
        "is not a readable safetensors file",
    ),
    "broken index": (bad_index, "model.safetensors.index.json is no index of weights"),
    "a weight is missing": (
        drop_a_weight,
        "lack 1 weights, model.layers.1.mlp.up_proj.weight among them",
    ),
    "wrong shapes": (reshape, "but config.json asks for ["),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_place(copied, mistake):
    make, message = MISTAKES[mistake]
    make(copied)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load(copied)
    text = str(caught.value)
    assert text.startswith("parent: ") and "\n" not in text


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"parent=.*/nowhere: there is no such directory"):
        parent_directory(str(tmp_path / "nowhere"))


def test_an_unknown_zoo_model():
    with pytest.raises(UserError, match="unknown zoo model 'lama-tiny'"):
        parent_directory("zoo:lama-tiny")


def test_a_hub_name_that_cannot_be_had(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(UserError, match="parent=no-such/model is neither a directory nor") as error:
        parent_directory("no-such/model")
    assert "ConnectionError" in str(error.value)


def test_a_hub_name_is_downloaded_without_code_and_pickles(monkeypatch, parent_dir):
    asked = {}

    def snapshot(name, allow_patterns):
        asked[name] = allow_patterns
        return str(parent_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert parent_directory("some/model") == parent_dir
    assert not any(p.endswith((".py", ".bin", "*")) for p in asked["some/model"])
