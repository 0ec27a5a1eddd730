"""Putting a child together: every sub-block from where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_puzzle import library_of

from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import Parent, load_parent
from adaptive.llm_puzzle.realise import child_config, realise_child
from adaptive.llm_puzzle.settings import DistillConfig, SpaceConfig
from adaptive.llm_puzzle.shapes import stack
from adaptive.llm_puzzle.space import search_space


@pytest.fixture(scope="module")
def library(parent, rows, tmp_path_factory) -> Library:
    space = search_space(SpaceConfig(kv_heads=[1], ffn_fractions=[0.5]), parent.blocks)
    return library_of(
        parent, space, rows, tmp_path_factory.mktemp("library"), DistillConfig(tokens=100, batch=4)
    )


@pytest.fixture(scope="module")
def blocks(parent: Parent) -> list[BlockOption]:
    own = parent.blocks[0]
    return [
        BlockOption(AttentionOption("no_op"), FFNOption("mlp", 24)),
        BlockOption(AttentionOption("gqa", 1), FFNOption("linear")),
        BlockOption(own.attention, FFNOption("no_op")),
    ]


@torch.no_grad()
def test_the_parents_blocks_make_the_parent(parent, tmp_path):
    child = realise_child(
        parent.model, parent.blocks, Library(tmp_path)
    )  # an empty library will do
    ids = torch.randint(3, 60, (2, 9))
    assert torch.equal(child(ids).logits, parent.model(ids).logits)


@torch.no_grad()
def test_a_child_is_its_sub_blocks_one_after_the_other(parent, library, blocks):
    child, inner = realise_child(parent.model, blocks, library), parent.model.model
    ids = torch.randint(3, 60, (2, 9))
    x = inner.embed_tokens(ids)
    rope = inner.rotary_emb(x, position_ids=torch.arange(9)[None])
    for i, block in enumerate(blocks):
        x = library.load(parent.model, i, block.attention).attend(x, rope)
        x = library.load(parent.model, i, block.ffn).feed(x)
    wanted = parent.model.lm_head(inner.norm(x))
    torch.testing.assert_close(child(ids).logits, wanted, rtol=0, atol=1e-5)


def test_a_child_owns_its_weights(parent, library, blocks):
    child = realise_child(parent.model, blocks, library)
    before = {name: weight.clone() for name, weight in parent.model.state_dict().items()}
    with torch.no_grad():
        for weight in child.parameters():
            weight.add_(1)
    for name, weight in parent.model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert not child.training


def test_parameters_are_those_that_are_priced(parent, library, blocks):
    child = realise_child(parent.model, blocks, library)
    priced = stack(child.config).params()
    assert sum(weight.numel() for weight in child.parameters()) == priced
    assert priced < sum(weight.numel() for weight in parent.model.parameters())


def test_tied_embeddings_stay_tied(parent, blocks, make_child):
    config = child_config(parent.model.config, blocks)
    config.tie_word_embeddings = True
    tied = PuzzleForCausalLM(config).eval()
    child = realise_child(
        tied, [BlockOption.from_config(b) for b in tied.config.blocks], Library(Path())
    )
    assert child.lm_head.weight.data_ptr() == child.model.embed_tokens.weight.data_ptr()
    assert torch.equal(child.lm_head.weight, tied.lm_head.weight)


def test_rotary_frequencies_keep_their_precision(parent_dir):
    parent = load_parent(str(parent_dir), torch.device("cpu"), torch.bfloat16)
    child = realise_child(parent.model, parent.blocks, Library(Path()))
    assert child.dtype == torch.bfloat16
    assert torch.equal(child.model.rotary_emb.inv_freq, parent.model.model.rotary_emb.inv_freq)
    assert child.model.rotary_emb.inv_freq.dtype == torch.float32


def test_the_childs_configuration_is_the_parents_but_for_the_blocks(parent, blocks):
    config = child_config(parent.model.config, blocks)
    assert [BlockOption.from_config(entry) for entry in config.blocks] == blocks
    theirs, ours = parent.model.config.to_dict(), config.to_dict()
    different = {name for name in theirs if theirs[name] != ours[name]}
    assert different == {"blocks"}
