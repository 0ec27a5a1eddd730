"""Coupled local distillation: pairs learn together, never lose, and make the child."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_puzzle import files, library_of

from adaptive.core import Budget, ChoiceProblem
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption, side
from adaptive.llm_puzzle.coupled import reduced_space, trainable
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.distill import build_variants, training_flops
from adaptive.llm_puzzle.export.restrict import Restriction
from adaptive.llm_puzzle.group_trainer import HELD_OUT, Speed
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.score import compare, score_library
from adaptive.llm_puzzle.settings import DistillConfig, ScoreConfig, SpaceConfig
from adaptive.llm_puzzle.space import LayerSpace, search_space

OWN = BlockOption(AttentionOption("gqa", 4), FFNOption("mlp", 48))
NARROW = BlockOption(AttentionOption("gqa", 1), FFNOption("mlp", 24))
LINEAR = BlockOption(AttentionOption("linear"), FFNOption("mlp", 24))
NO_FFN = BlockOption(AttentionOption("gqa", 1), FFNOption("no_op"))
NO_ATTENTION = BlockOption(AttentionOption("no_op"), FFNOption("linear"))
WANTED = [[NARROW, NO_FFN], [], [LINEAR, NO_ATTENTION]]
CPU = torch.device("cpu")
CONFIG = DistillConfig(tokens=1500, batch=4, learning_rate=2e-3)
# The batched product of attention has no kernel of its own on a CPU, of which torch warns.
grouped = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.fixture(scope="module")
def space(parent) -> list[LayerSpace]:
    return search_space(SpaceConfig(kv_heads=[1], ffn_fractions=[0.5]), parent.blocks)


@pytest.fixture(scope="module")
def apart(parent, space, rows, tmp_path_factory) -> Library:
    """Halves with their closed-form starts, trained apart a little."""
    return library_of(
        parent, space, rows, tmp_path_factory.mktemp("apart"), DistillConfig(tokens=100, batch=4)
    )


def couple(
    parent, apart, rows: Rows, directory: Path, config=CONFIG, wanted=WANTED, **more: Any
) -> list[VariantRecord]:
    library = Library(directory)
    settings = {"seed": 3, "batch": 8, "apart": apart, **more}
    build_variants(parent.model, wanted, rows, config, library, **settings)
    found = [library.record(i, block) for i, blocks in enumerate(wanted) for block in blocks]
    assert None not in found
    return [record for record in found if record is not None]


@pytest.fixture(scope="module")
def coupled(parent, apart, rows, tmp_path_factory) -> tuple[Path, list[VariantRecord]]:
    directory = tmp_path_factory.mktemp("coupled")
    return directory, couple(parent, apart, rows, directory)


def error(parent, rows: Rows, layer: int, weights: dict[str, torch.Tensor], block: BlockOption):
    """Normalised block error on held-out rows, from plain forward passes of a whole child."""
    held = rows.select(torch.arange(len(rows) // HELD_OUT))
    blocks = [block if i == layer else own for i, own in enumerate(parent.blocks)]
    state = {f"model.layers.{layer}.{name}": weight for name, weight in weights.items()}
    child = realise_child(parent.model, parent.blocks, Library(Path()))
    child.model.layers[layer] = type(child.model.layers[layer])(
        child.config, blocks[layer].to_config()
    )
    child.load_state_dict(state, strict=False)
    outputs = {}
    for name, model in {"parent": parent.model, "child": child}.items():

        def keep(module, args, output, name=name):
            outputs[name] = output

        hook = model.model.layers[layer].register_forward_hook(keep)
        with torch.no_grad():
            model(held.ids_NT)
        hook.remove()
    wanted, found = (outputs[name][held.mask_NT] for name in ("parent", "child"))
    return ((found - wanted).square().sum() / wanted.square().sum()).item()


# --- training ---


def test_the_library_names_pairs_by_both_halves(coupled):
    directory, records = coupled
    assert sorted(files(directory, "*.safetensors")) == [
        "layer_000/block-kv1+ffn24.safetensors",
        "layer_000/block-kv1+no_op.safetensors",
        "layer_002/block-linear+ffn24.safetensors",
        "layer_002/block-no_op+linear.safetensors",
    ]
    assert {record.side for record in records} == {"block"} == {side(NARROW)}
    assert [record.option for record in records] == [b.label for bs in WANTED for b in bs]
    assert records[0].loss_paper is None and records[0].loss_ridge is None
    # Two norms; q and o of 32 x 32, k and v of one head of 8; three matrices of 24 x 32.
    assert records[0].params == 2 * 32 + 2 * 32 * 32 + 2 * 8 * 32 + 3 * 24 * 32


def test_losses_are_those_of_whole_blocks_and_start_from_the_halves(parent, apart, rows, coupled):
    directory, records = coupled
    together = Library(Path(), directory)
    for record, (layer, block) in zip(
        records, ((i, b) for i, blocks in enumerate(WANTED) for b in blocks), strict=True
    ):
        start = error(parent, rows, layer, apart.block(parent.model, layer, block), block)
        end = error(parent, rows, layer, together.block(parent.model, layer, block), block)
        assert record.loss_start == pytest.approx(start, rel=1e-4)
        assert record.loss == pytest.approx(end, rel=1e-4)


def test_pairs_learn_more_together(coupled):
    """Every pair here has something to gain: its halves have never met."""
    falls = [record.loss / record.loss_start for record in coupled[1]]
    assert max(falls) <= 1 and falls[0] < 0.99 and np.mean(falls) < 0.98, falls


@pytest.mark.parametrize("rate", [0.03, 1e3, 1e30])
def test_no_pair_ends_worse_than_its_halves(parent, apart, rows, tmp_path, rate):
    config = DistillConfig(tokens=200, batch=4, learning_rate=rate, warmup=0.0)
    for record in couple(parent, apart, rows, tmp_path, config):
        assert record.loss <= record.loss_start
        if rate > 1:
            assert record.loss == record.loss_start
    if rate > 1:  # what is kept is the halves, bit by bit
        kept = Library(tmp_path).state(0, NARROW)
        for name, weight in apart.block(parent.model, 0, NARROW).items():
            assert torch.equal(kept[name], weight)


def test_a_no_op_beside_a_variant_trains_the_variant(parent, apart, coupled):
    stored = Library(coupled[0]).state(0, NO_FFN)
    before = apart.state(0, NO_FFN.attention)
    assert stored.keys() == before.keys()
    assert any(not torch.equal(stored[name], before[name]) for name in stored)


def test_both_halves_move(parent, apart, coupled):
    stored = Library(coupled[0]).state(0, NARROW)
    before = apart.block(parent.model, 0, NARROW)
    moved = {n.partition(".")[0] for n in stored if not torch.equal(stored[n], before[n])}
    assert {"self_attn", "mlp"} <= moved and stored.keys() == before.keys()


def test_halves_and_parent_are_left_alone(parent, apart, rows, tmp_path):
    weights = {name: weight.clone() for name, weight in parent.model.state_dict().items()}
    halves = files(apart.directory, "*.safetensors")
    couple(parent, apart, rows, tmp_path)
    assert files(apart.directory, "*.safetensors") == halves
    for name, weight in parent.model.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize("finished", [1, 3])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(
    parent, apart, rows, coupled, tmp_path, finished
):
    made: list[VariantRecord] = []

    def kill(record: VariantRecord) -> None:
        made.append(record)
        if len(made) == finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        couple(parent, apart, rows, tmp_path, log=kill)
    assert len(files(tmp_path, "*.safetensors")) == finished
    again, speed = [], Speed()
    couple(parent, apart, rows, tmp_path, log=again.append, speed=speed)
    assert len(made) + len(again) == 4
    assert speed.tokens == sum(record.tokens for record in again)  # nothing is trained twice
    assert files(tmp_path, "*.safetensors") == files(coupled[0], "*.safetensors")


@grouped
def test_a_group_learns_what_its_layers_learn_alone(parent, apart, rows, tmp_path):
    wanted = [[NARROW, NO_FFN], [NARROW], [NARROW, NO_ATTENTION]]
    alone = couple(parent, apart, rows, tmp_path / "alone", wanted=wanted)
    config = dataclasses.replace(CONFIG, group=3)
    together = couple(parent, apart, rows, tmp_path / "together", config, wanted)
    for a, b in zip(alone, together, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-3)
        assert b.loss_start == pytest.approx(a.loss_start, rel=1e-5)


def test_what_training_takes_is_counted(parent, apart, rows, tmp_path):
    speed, wanted = Speed(), [[NARROW], [], []]
    (record,) = couple(parent, apart, rows, tmp_path, wanted=wanted, speed=speed)
    assert speed.tokens == record.tokens > 0 and speed.seconds > 0
    kv1, ffn24 = 2 * (2 * 32 * 32 + 2 * 8 * 32), 3 * 2 * 32 * 24
    products = 3 * (kv1 + ffn24)  # forward and backward, attention scores on top
    assert training_flops(parent.model.config, wanted, parent.blocks) == [products, 0, 0]
    assert products * speed.tokens < speed.flops < 1.2 * products * speed.tokens


def test_a_pair_that_no_longer_learns_stops(parent, apart, rows, tmp_path):
    long = dataclasses.replace(CONFIG, tokens=4000, early_stop=0.5)
    for record in couple(parent, apart, rows, tmp_path, long):
        assert record.tokens < 2000 and record.loss <= record.loss_start


def test_weights_of_16_bits_are_trained_in_32(parent_dir, space, rows, tmp_path):
    """Steps that bfloat16 rounds away add up."""
    low = load_parent(str(parent_dir), CPU, torch.bfloat16)
    halves = Library(tmp_path / "apart")
    start = DistillConfig(init="paper", tokens=0)
    build_variants(
        low.model, [layer.variants for layer in space], rows, start, halves, seed=0, batch=8
    )
    slow = DistillConfig(tokens=30_000, batch=8, learning_rate=2e-5, warmup=0.0)
    (record,) = couple(low, halves, rows, tmp_path / "coupled", slow, [[NARROW], [], []])
    assert record.loss < 0.99 * record.loss_start
    stored = Library(tmp_path / "coupled").state(0, NARROW)
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}


# --- children and scores ---


@torch.no_grad()
def test_a_child_takes_pairs_trained_together_where_there_are_any(parent, apart, coupled):
    blocks = [NARROW, NARROW, NO_ATTENTION]  # of layer 1 the library holds halves only
    library = Library(apart.directory, coupled[0])
    assert [library.holds_together(i, b) for i, b in enumerate(blocks)] == [True, False, True]
    child = realise_child(parent.model, blocks, library)
    for i, block in enumerate(blocks):
        found = child.model.layers[i].state_dict()
        wanted = (
            load_file(coupled[0] / f"layer_{i:03d}" / f"block-{block.label}.safetensors")
            if i != 1
            else apart.block(parent.model, i, block)
        )
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    halves = realise_child(parent.model, blocks, apart)
    ids = torch.randint(3, 60, (2, 9))
    assert not torch.equal(child(ids).logits, halves(ids).logits)
    # Fewer bits are rounded from halves.
    few = BlockOption(dataclasses.replace(NARROW.attention, bits="fp8"), NARROW.ffn)
    assert not library.holds_together(0, few)


@pytest.mark.parametrize("granularity", ["block", "subblock"])
def test_scores_are_those_of_children_with_one_pair(
    parent, space, apart, rows, coupled, tmp_path, granularity
):
    library = Library(apart.directory, coupled[0])
    pairs = [[OWN, NARROW, NO_FFN], [OWN], [OWN, LINEAR, NARROW]]  # the last: halves only
    config = ScoreConfig(granularity=granularity)
    scores = score_library(parent.model, space, library, rows, config, tmp_path, reduced=pairs)
    for layer, (score, options) in enumerate(zip(scores, space, strict=True)):
        table_AF = score.values_AF["kl"]
        assert np.isfinite(table_AF).sum() == len(pairs[layer]) and table_AF[0, 0] == 0
        for block in pairs[layer][1:]:
            blocks = [block if i == layer else own for i, own in enumerate(parent.blocks)]
            child = realise_child(parent.model, blocks, library)
            measured = compare(parent.model, child, rows, 10_000)["kl"]
            assert table_AF[options.index(block)] == pytest.approx(measured, rel=1e-3, abs=1e-6)


# --- the reduced space ---


def test_the_childs_pair_stays_and_the_most_often_chosen_follow(space):
    layer = space[0]
    a, b, c, d = 1, 5, 6, 7
    choices = [np.array([k]) for k in (a, b, c, c, 0, 0, 0, d, d, c)]
    blocks = layer.blocks
    assert reduced_space([layer], choices, 2) == [[blocks[0], blocks[a], blocks[c]]]
    assert reduced_space([layer], choices, 9) == [[blocks[k] for k in (0, a, c, d, b)]]
    assert reduced_space([layer], [np.array([0]), *choices], 1) == [[blocks[0], blocks[c]]]


CHOICES = st.lists(st.lists(st.integers(0, 15), min_size=3, max_size=3), min_size=1)


@given(CHOICES, st.integers(1, 5))
def test_a_reduced_space_holds_the_parent_and_the_child(space, choices, most):
    pairs = reduced_space(space, [np.array(choice) for choice in choices], most)
    for i, (blocks, layer) in enumerate(zip(pairs, space, strict=True)):
        assert blocks[0] == layer.parent and len(set(blocks)) == len(blocks) <= most + 1
        assert layer.blocks[choices[0][i]] in blocks
        assert set(blocks) <= {layer.parent, *(layer.blocks[choice[i]] for choice in choices)}


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        (NARROW, True),
        (NO_FFN, True),
        (NO_ATTENTION, True),
        (BlockOption(AttentionOption("no_op"), FFNOption("no_op")), False),
        (BlockOption(OWN.attention, FFNOption("mlp", 24)), False),
        (BlockOption(AttentionOption("gqa", 1), OWN.ffn), False),
        (BlockOption(AttentionOption("gqa", 1, bits="fp8"), FFNOption("mlp", 24)), False),
        (BlockOption(AttentionOption("gqa", 1), FFNOption("mlp", 48, bits="int4")), False),
        (OWN, False),
    ],
)
def test_what_is_trained_together(block, wanted):
    assert trainable(block, OWN) is wanted


def test_an_alternative_that_a_reduced_space_leaves_nothing_is_none():
    """Of engines with equal KV heads everywhere: the other number of heads is gone."""
    problem = ChoiceProblem(
        [[0.0, np.nan, 2.0], [0.0, np.nan, 1.0]], {"latency": [[3, 2, 1], [3, 2, 1]]}
    )
    alternatives = ([[False, True, False]] * 2, [[False, False, True]] * 2)
    found = Restriction(alternatives).apply({1: problem}, Budget({"latency": 4}))
    assert found[1].available.tolist() == [[False, False, True]] * 2
