"""What is measured: the blocks of a model, at sizes that cover what is asked later."""

from __future__ import annotations

import json

import pytest

import adaptive
from adaptive import zoo
from adaptive.core.cost import (
    FFN,
    Attention,
    Embedding,
    Head,
    Linear,
)
from adaptive.core.cost.models import MODELS, DecoderShape, VitShape, block_variants
from adaptive.core.cost.rows import RowKey
from adaptive.core.errors import UserError
from adaptive.core.profiling.config import (
    GridConfig,
    VariantsConfig,
)
from adaptive.core.profiling.grid import Request, blocks_of, model_shape, requests

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 256,
    "vocab_size": 100,
}
TINY = DecoderShape(64, 8, 8, 100, (4,) * 3, (256,) * 3)


# --- models ---


@pytest.mark.parametrize("name", MODELS)
def test_published_models(name):
    assert model_shape(name) == MODELS[name]


def test_models_of_the_zoo():
    shape = model_shape("zoo:llama-tiny")
    config = json.loads((zoo.path("llama-tiny") / "config.json").read_text())
    assert isinstance(shape, DecoderShape)
    assert (shape.hidden, shape.layers) == (config["hidden_size"], config["num_hidden_layers"])
    with pytest.raises(UserError, match=r"unknown zoo model 'llama-huge'.*llama-tiny"):
        model_shape("zoo:llama-huge")


def test_directories(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(LLAMA))
    assert model_shape(str(tmp_path / "mine")) == TINY
    monkeypatch.chdir(tmp_path)
    assert model_shape("mine") == model_shape("./mine") == TINY


def test_a_directory_without_a_configuration(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*empty.config\.json"):
        model_shape(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="cannot read .*nowhere"):
        model_shape(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["llama-3-8", "gpt-5"])
def test_an_unknown_model_is_one_sentence(name):
    with pytest.raises(UserError) as refusal:
        model_shape(name)
    sentence = str(refusal.value)
    assert sentence.startswith("model takes zoo:NAME, a directory with a config.json")
    assert f"unknown model {name!r}" in sentence and "llama-3-70b" in sentence
    assert "?," not in sentence and "?;" not in sentence
    assert sentence.endswith("did you mean 'llama-3-8b'?") == (name == "llama-3-8")


@pytest.mark.parametrize("task", ["profile", "verify_costs"])
def test_an_unknown_model_is_refused_before_anything_is_measured(task, tmp_path):
    with pytest.raises(UserError, match="unknown model 'gpt-5'"):
        adaptive.load(task, "model=gpt-5", "device=cpu").run(tmp_path / "run")
    assert not list(tmp_path.rglob("*.csv"))


def test_children_of_encoders_are_refused(tmp_path):
    with pytest.raises(UserError, match="model=vit-small generates no text, verify_costs needs a"):
        adaptive.load("verify_costs", "model=vit-small", "device=cpu").run(tmp_path / "run")


# --- blocks ---


def test_the_blocks_are_those_of_the_space():
    variants = VariantsConfig()
    assert blocks_of(MODELS["llama-3-8b"], variants) == block_variants("llama-3-8b")
    narrow = VariantsConfig(kv_heads=[2], ffn_fractions=[0.5], ffn_multiple=32, linear=False)
    assert set(blocks_of(TINY, narrow)) == {
        Embedding(100, 64),
        Head(64, 100),
        Attention(64, 8, 4, 8),
        Attention(64, 8, 2, 8),
        FFN(64, 256),
        FFN(64, 128),
    }


def test_tensor_parallel_adds_the_parts():
    whole = blocks_of(TINY, VariantsConfig(ffn_multiple=32))
    both = blocks_of(TINY, VariantsConfig(ffn_multiple=32, tensor_parallel=[1, 2]))
    assert len(both) == len(set(both)) and both[: len(whole)] == whole
    assert set(both) == {*whole, *(block.shard(2) for block in whole)}
    assert {FFN(64, 128), Attention(64, 4, 2, 8), Head(64, 50), Linear(64, 32)} <= set(both)
    with pytest.raises(UserError, match="tensor_parallel=3 does not divide"):
        blocks_of(TINY, VariantsConfig(ffn_multiple=32, tensor_parallel=[3]))


def test_the_blocks_of_an_encoder_are_all_that_it_is_made_of():
    shape = MODELS["vit-small"]
    assert isinstance(shape, VitShape)
    blocks = blocks_of(shape, VariantsConfig())
    assert set(blocks) == set(shape.stack().parts())
    assert {block.kind for block in blocks} == {"conv2d", "embedding", "vit_block", "norm"}


# --- sizes ---

GRIDS = {
    "default": GridConfig(),
    "tiny": adaptive.load("verify_costs_tiny").config.workload,  # type: ignore[attr-defined]
    "one of each": GridConfig([3], [7], [5], [2], prefill_tokens=10),
    "no prefill fits": GridConfig([1], [8], [64], [4], prefill_tokens=32),
    "odd and large batches": GridConfig([5, 100], [8], [7], [1, 3], prefill_tokens=32),
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
BLOCKS = blocks_of(TINY, VariantsConfig(ffn_multiple=32))


@grids
def test_sizes_are_within_limits(grid):
    for want in requests(BLOCKS, grid, vision=False):
        if want.phase == "prefill":
            assert 1 <= want.batch * want.length <= grid.prefill_tokens
            if not want.block.pointwise:
                assert want.batch in grid.prefill_batches and want.length in grid.prompts
        else:
            assert want.batch in grid.batches
            lengths = [0] if want.block.pointwise else [n - 1 for n in grid.contexts]
            assert want.length in lengths


@grids
def test_every_size_asked_for_is_there(grid):
    found = set(requests(BLOCKS, grid, vision=False))
    attention = [block for block in BLOCKS if isinstance(block, Attention)]
    for block in attention:
        for batch in grid.batches:
            decodes = {
                w.length for w in found if (w.block, w.phase, w.batch) == (block, "decode", batch)
            }
            assert decodes == {context - 1 for context in grid.contexts}
        prefills = {(w.batch, w.length) for w in found if (w.block, w.phase) == (block, "prefill")}
        assert prefills == {
            (batch, prompt)
            for batch in grid.prefill_batches
            for prompt in grid.prompts
            if batch * prompt <= grid.prefill_tokens
        }  # fmt: skip
    for block in set(BLOCKS) - set(attention):
        tokens = {key(w).batch for w in found if w.block == block}
        assert {*grid.batches, 1} <= tokens
        if isinstance(block, Head):  # one position a sequence
            assert max(tokens) == max(*grid.batches, *grid.prefill_batches)
            continue
        dense = sorted(n for n in tokens if n <= grid.prefill_tokens)
        assert all(b <= 2 * a for a, b in zip(dense, dense[1:], strict=False))
        assert 2 * max(tokens) > grid.prefill_tokens


def key(want: Request) -> RowKey:
    return RowKey.of(want.block, want.phase, want.batch, want.length, "bf16", "graph")


@grids
def test_only_what_the_number_of_tokens_decides_is_asked_for_twice(grid):
    wanted = list(requests(BLOCKS, grid, vision=False))
    assert len(wanted) == len(set(wanted))
    keys = [key(want) for want in wanted if not want.block.pointwise]
    assert len(keys) == len(set(keys))


@grids
def test_what_runs_together_is_asked_for_together(grid):
    """Blocks of one forward come one after the other, in whatever order."""
    places = [(w.phase, w.batch, w.length) for w in requests(BLOCKS, grid, vision=False)]
    starts = [b for a, b in zip([None, *places], places, strict=False) if a != b]
    assert len(starts) == len(set(starts))
