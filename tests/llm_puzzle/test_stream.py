"""Layers that come and go give what layers that stay give, and no more of them are held."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_puzzle import SHAPE
from transformers import LlamaConfig, LlamaForCausalLM

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.distill import build_variants
from adaptive.llm_puzzle.evaluate.quality import evaluate
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.parent import Parent, load_parent
from adaptive.llm_puzzle.score import score_library
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, SpaceConfig
from adaptive.llm_puzzle.space import search_space
from adaptive.llm_puzzle.stream import LEAST, StreamedLayers

DEPTH = 7


@pytest.fixture(scope="module")
def deep_dir(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "deep"
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_hidden_layers": DEPTH}))
    model.save_pretrained(directory, max_shard_size="40KB")
    return directory


def load(directory: Path, layers: int | None, dtype: torch.dtype = torch.float32) -> Parent:
    return load_parent(str(directory), torch.device("cpu"), dtype, layers)


def streamed(parent: Parent) -> StreamedLayers:
    layers = parent.model.model.layers
    assert isinstance(layers, StreamedLayers)
    return layers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("room", [0, 1, LEAST, 5, DEPTH - 1])
@torch.no_grad()
def test_a_streamed_parent_is_the_parent(deep_dir, room, dtype):
    whole, part = load(deep_dir, None, dtype), load(deep_dir, room, dtype)
    ids = torch.randint(3, 60, (2, 9))
    for _ in range(3):
        ours, theirs = (
            parent.model(ids, output_hidden_states=True).hidden_states for parent in (part, whole)
        )
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert streamed(part).held <= max(room, LEAST)
    assert len(whole.model.model.layers) == len(streamed(part)) == DEPTH


@given(
    room=st.integers(LEAST, DEPTH - 1),
    asked=st.lists(st.integers(-DEPTH, DEPTH - 1), min_size=1, max_size=40),
)
@settings(max_examples=30, deadline=None)
def test_whatever_is_asked_for_comes_and_no_more_than_there_is_room_for(deep_dir, room, asked):
    whole, part = load(deep_dir, None), load(deep_dir, room)
    layers = streamed(part)
    alive: list[weakref.ref] = []
    for index in asked:
        layer = layers[index]
        theirs = whole.model.model.layers[index].state_dict()
        assert all(torch.equal(w, theirs[name]) for name, w in layer.state_dict().items())
        assert not any(weight.requires_grad for weight in layer.parameters())
        alive.append(weakref.ref(layer))
        del layer
        assert layers.held <= room
        # What is not held is gone: nobody else keeps it.
        assert len({id(r()) for r in alive if r() is not None}) <= room
    with pytest.raises(IndexError):
        layers[DEPTH]


def test_a_sweep_reads_only_what_had_no_room(deep_dir, monkeypatch):
    layers = streamed(load(deep_dir, 4))
    reads: list[int] = []
    read = layers._read
    monkeypatch.setattr(layers, "_read", lambda index: reads.append(index) or read(index))
    for _ in layers:
        pass
    assert sorted(reads) == [*range(DEPTH)] or sorted(reads) == [0, *range(DEPTH)]
    for _ in range(3):
        reads.clear()
        for _ in layers:
            pass
        gc.collect()
        assert len(reads) <= DEPTH - 4 + LEAST
        assert len(set(reads)) == len(reads)


def test_the_layers_of_a_slice_come_one_by_one(deep_dir):
    layers = streamed(load(deep_dir, LEAST))
    wanted = [w.model.model.layers[i].state_dict() for w in [load(deep_dir, None)] for i in (4, 5)]
    for layer, theirs in zip(layers[4:6], wanted, strict=True):
        assert torch.equal(layer.mlp.up_proj.weight, theirs["mlp.up_proj.weight"])
        assert layers.held <= LEAST
    assert list(layers[DEPTH:]) == []


def test_nothing_of_the_layers_is_a_parameter_of_the_model(deep_dir):
    model = load(deep_dir, LEAST).model
    names = {name for name, _ in model.named_parameters()}
    assert names == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_checkpoint_that_lacks_a_layers_weight_is_refused_at_once(deep_dir, tmp_path, change):
    copy = Path(shutil.copytree(deep_dir, tmp_path / "copy"))
    name = "model.layers.5.mlp.up_proj.weight"
    shard = next(f for f in copy.glob("*.safetensors") if name in load_file(f))
    weights = load_file(shard)
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, shard)
    words = {"missing": f"lack 1 weights, {name} among", "shape": f"{name} has shape .47, 32."}
    with pytest.raises(UserError, match=words[change]):
        load(copy, LEAST)


def test_a_parent_larger_than_the_memory_is_streamed(deep_dir, monkeypatch):
    whole = load(deep_dir, None).model
    layer = sum(w.numel() for w in whole.model.layers[0].parameters())
    ends = sum(w.numel() for w in whole.parameters()) - DEPTH * layer
    for held in (3, 5):
        free = 4 * (ends + (held + 0.5) * layer) / 0.4
        monkeypatch.setattr("adaptive.llm_puzzle.parent.free_memory", lambda device, f=free: f)
        assert streamed(load(deep_dir, None)).room == held
    monkeypatch.setattr("adaptive.llm_puzzle.parent.free_memory", lambda device: 1e12)
    assert isinstance(load(deep_dir, None).model.model.layers, torch.nn.ModuleList)


def test_layers_read_during_an_evaluation_can_be_trained_through(deep_dir):
    layers = streamed(load(deep_dir, LEAST))
    with torch.inference_mode():
        layer = layers[2]
    x = torch.randn(3, 32, requires_grad=True)
    layer.feed(x).sum().backward()
    assert x.grad is not None


def counted(layers, monkeypatch) -> list[int]:
    """Indices of streamed layers, as they are read."""
    reads: list[int] = []
    read = layers._read
    monkeypatch.setattr(layers, "_read", lambda index: reads.append(index) or read(index))
    return reads


def test_an_evaluation_reads_every_layer_once_however_many_batches(deep_dir, rows, monkeypatch):
    whole, part = load(deep_dir, None).model, load(deep_dir, LEAST).model
    reads = counted(part.model.layers, monkeypatch)
    assert len(list(rows.token_batches(60))) > 3
    found, wanted = evaluate(part, rows, 60, whole), evaluate(whole, rows, 60, part)
    assert found == wanted and found.kl == 0 and found.top1 == 1
    # Once for each of the two evaluations; the layer after the last may be on its way.
    assert set(reads) == {*range(DEPTH)} and len(reads) <= 2 * (DEPTH + 1)


@pytest.mark.parametrize("room", [0.0, 3e4, 1e9])
def test_scores_of_a_streamed_parent(deep_dir, rows, tmp_path, monkeypatch, room):
    whole, part = load(deep_dir, None), load(deep_dir, LEAST)
    space = search_space(SpaceConfig(kv_heads=[1], ffn_fractions=[0.5]), whole.blocks)
    library = Library(tmp_path / "library")
    variants = [layer.variants for layer in space]
    untrained = DistillConfig(init="paper", tokens=0)
    build_variants(whole.model, variants, rows, untrained, library, seed=0, batch=8)
    monkeypatch.setattr(Store, "room", lambda store: room)
    reads = counted(part.model.model.layers, monkeypatch)
    config = ScoreConfig(batch_tokens=100)  # many batches of rows, each of many chunks of pairs
    found, wanted = (
        score_library(parent.model, space, library, rows, config, tmp_path / name)
        for name, parent in (("part", part), ("whole", whole))
    )
    for ours, theirs in zip(found, wanted, strict=True):
        for name, values_AF in ours.values_AF.items():
            assert np.array_equal(values_AF, theirs.values_AF[name])
    behind = DEPTH * (DEPTH + 1) // 2  # each layer, and all those behind it
    if room == 1e9:
        assert len(reads) <= behind + 2 * DEPTH  # and what was on its way
    else:
        assert len(reads) > 2 * behind
