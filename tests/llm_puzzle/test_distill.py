"""Blockwise local distillation: it learns, never loses, resumes and leaves the parent alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_puzzle import CHILDREN, blocks_of, files, library_of

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.activations import PLACES, Store
from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.distill import groups
from adaptive.llm_puzzle.group_trainer import HELD_OUT, Speed, schedule
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.settings import DistillConfig, SpaceConfig
from adaptive.llm_puzzle.space import LayerSpace, search_space

SPACE = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=[0, 2])
CONFIG = DistillConfig(tokens=1500, batch=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def space(parent) -> list[LayerSpace]:
    return search_space(SPACE, parent.blocks)


def make(
    parent, space, rows: Rows, directory: Path, config: DistillConfig = CONFIG, **more
) -> list[VariantRecord]:
    library = library_of(parent, space, rows, directory, config, seed=3, **more)
    return list(library.records(space))


@pytest.fixture(scope="module")
def built(parent, space, rows, tmp_path_factory) -> tuple[Path, list[VariantRecord]]:
    directory = tmp_path_factory.mktemp("library")
    return directory, make(parent, space, rows, directory)


def test_the_library_holds_every_variant_of_the_searched_layers(built):
    directory, records = built
    assert sorted(files(directory)) == [
        f"layer_{layer:03d}/{name}.safetensors"
        for layer in (0, 2)
        for name in ("attention-kv1", "attention-linear", "ffn-ffn24", "ffn-linear")
    ]
    assert [(r.layer, r.side, r.option) for r in records[:2]] == [
        (0, "attention", "kv1"),
        (0, "attention", "linear"),
    ]
    # norm; q and o of 32 x 32, k and v of one head of 8
    assert records[0].params == 32 + 2 * 32 * 32 + 2 * 8 * 32
    assert records[0].tokens >= CONFIG.tokens * 0.8


def test_the_loss_goes_down(parent, space, tmp_path):
    """On held-out rows. The paper's start is far from any optimum, so every variant can learn."""
    torch.manual_seed(0)
    many = Rows(torch.randint(3, 60, (160, 12)), torch.full((160,), 12))
    config = DistillConfig(init="paper", tokens=6000, batch=8, learning_rate=5e-3)
    falls = [r.loss / r.loss_start for r in make(parent, space, many, tmp_path, config)]
    assert max(falls) < 0.98 and sum(falls) / len(falls) < 0.8, falls


def test_records_say_where_each_start_was(built, parent, space, rows, tmp_path):
    by_paper = make(parent, space, rows, tmp_path, DistillConfig(init="paper", tokens=0, batch=4))
    for record, untrained in zip(built[1], by_paper, strict=True):
        assert record.loss_start == record.loss_ridge
        assert untrained.loss_start == untrained.loss_paper == untrained.loss == record.loss_paper
        assert untrained.tokens == 0


def test_the_loss_is_the_normalised_error_of_the_block(built, parent, space, rows):
    """On held-out rows, with the parent's other half around it, from plain forward passes."""
    directory, records = built
    held = rows.select(torch.arange(len(rows) // HELD_OUT))
    library = Library(directory)
    with torch.no_grad():
        states = parent.model(held.ids_NT, output_hidden_states=True).hidden_states
    for record in records:
        if record.layer != 0:
            continue
        option = next(
            o
            for o in space[0].variants
            if o.label == record.option
            and isinstance(o, AttentionOption) == (record.side == "attention")
        )
        variant, own = library.load(parent.model, 0, option), parent.model.model.layers[0]
        position_ids = torch.arange(held.ids_NT.shape[1])[None]
        rope = parent.model.model.rotary_emb(states[0], position_ids=position_ids)
        attend = variant if record.side == "attention" else own
        feed = own if record.side == "attention" else variant
        y, wanted = feed.feed(attend.attend(states[0], rope)), states[1]
        error = (y - wanted)[held.mask_NT].square().sum() / wanted[held.mask_NT].square().sum()
        assert record.loss == pytest.approx(error.item(), rel=1e-4)


def test_the_parent_is_left_alone(parent, space, rows, tmp_path):
    before = {name: weight.clone() for name, weight in parent.model.state_dict().items()}
    make(parent, space, rows, tmp_path)
    for name, weight in parent.model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(w.grad is None and not w.requires_grad for w in parent.model.parameters())


@pytest.mark.parametrize("finished", [1, 4, 5])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(
    built, parent, space, rows, tmp_path, finished
):
    made: list[VariantRecord] = []

    class Killed(BaseException):
        pass

    def kill(record: VariantRecord) -> None:
        made.append(record)
        if len(made) == finished:
            raise Killed

    with pytest.raises(Killed):
        make(parent, space, rows, tmp_path, log=kill)
    assert len(files(tmp_path)) == finished
    again: list[VariantRecord] = []
    make(parent, space, rows, tmp_path, log=again.append)
    assert len(made) + len(again) == 8
    assert files(tmp_path) == files(built[0])


def test_a_finished_library_is_not_touched(built, parent, space, rows):
    again: list[VariantRecord] = []
    before = files(built[0])
    make(parent, space, rows, built[0], log=again.append)
    assert again == [] and files(built[0]) == before


def test_variants_do_not_depend_on_each_other(built, parent, rows, tmp_path):
    """A smaller space gives the same bytes for what both hold."""
    config = SpaceConfig(
        kv_heads=[], ffn_fractions=[0.5], layers=[2], attention_linear=False, ffn_linear=False
    )
    make(parent, search_space(config, parent.blocks), rows, tmp_path)
    name = "layer_002/ffn-ffn24.safetensors"
    assert files(tmp_path) == {name: files(built[0])[name]}


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_training_that_fails_keeps_the_start(parent, space, rows, tmp_path, rate):
    config = DistillConfig(tokens=300, batch=4, learning_rate=rate, warmup=0.0)
    for record in make(parent, space, rows, tmp_path, config):
        assert record.loss == record.loss_start == record.loss_ridge


@pytest.mark.parametrize("init", ["paper", "ridge"])
def test_no_variant_ends_worse_than_it_started(parent, space, rows, tmp_path, init):
    config = DistillConfig(init=init, tokens=200, batch=2, learning_rate=3e-2)
    for record in make(parent, space, rows, tmp_path, config):
        assert record.loss <= record.loss_start


def test_one_row_is_enough(parent, space, rows, tmp_path):
    only = rows.select(torch.tensor([0]))
    assert len(make(parent, space, only, tmp_path, DistillConfig(tokens=20))) == 8


def test_padding_does_not_change_training(built, parent, space, rows, tmp_path):
    wide = Rows(torch.nn.functional.pad(rows.ids_NT, (0, 5), value=9), rows.lengths_N)
    for record, padded in zip(built[1], make(parent, space, wide, tmp_path), strict=True):
        assert padded.loss == pytest.approx(record.loss, rel=1e-2)


def test_a_damaged_variant_is_named(parent, space, rows, tmp_path):
    make(parent, space, rows, tmp_path, DistillConfig(tokens=0))
    library, option = Library(tmp_path), FFNOption("mlp", 24)
    path = library.path(2, option)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"library: .*layer_002/ffn-ffn24.safetensors is damaged"):
        make(parent, space, rows, tmp_path, DistillConfig(tokens=0))
    path.unlink()
    with pytest.raises(UserError, match=r"ffn-ffn24.safetensors is missing"):
        library.load(parent.model, 2, option)


@torch.no_grad()
def test_the_parents_own_half_comes_from_the_parent(built, parent):
    library = Library(built[0])
    model: PuzzleForCausalLM = parent.model
    x = torch.randn(2, 3, 32)
    layer = library.load(model, 1, model_option := parent.blocks[1].ffn)
    assert torch.equal(layer.feed(x), model.model.layers[1].feed(x))
    assert model_option.kind == "mlp"
    nothing = library.load(model, 1, FFNOption("no_op"))
    assert torch.equal(nothing.feed(x), x) and not list(nothing.parameters())


def test_the_learning_rate_rises_and_falls():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11
    assert schedule(0, 1, 0.05) == 1.0


# --- groups of layers ---

EVERY = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=[0, 1, 2])
# The batched product of attention has no kernel of its own on a CPU, of which torch warns.
grouped = pytest.mark.filterwarnings("ignore:There is a performance drop")


@pytest.mark.parametrize(
    ("size", "wanted"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (9, [[0, 1, 2]]), (None, None)]
)
def test_groups_are_layers_in_order(parent, size, wanted):
    space = search_space(EVERY, parent.blocks)
    found = groups(parent.model, space, DistillConfig(group=size))
    assert found == (wanted or [[0], [1], [2]])  # on a CPU nothing is batched by itself


def test_groups_end_where_the_parent_changes(make_child):
    model = make_child("mixed heads")
    space = [LayerSpace((b.attention,), (b.ffn,)) for b in blocks_of(CHILDREN["mixed heads"])]
    assert groups(model, space, DistillConfig(group=4)) == [[0], [1], [2], [3]]


@grouped
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("layers", [[0, 1, 2], [0, 2]])
def test_a_group_learns_what_its_layers_learn_alone(parent, rows, tmp_path, size, layers):
    config = SpaceConfig(kv_heads=[1], ffn_fractions=[0.5], layers=layers)
    space = search_space(config, parent.blocks)
    alone = make(parent, space, rows, tmp_path / "alone")
    together = make(
        parent, space, rows, tmp_path / "together", dataclasses.replace(CONFIG, group=size)
    )
    assert len(alone) == len(together) == 4 * len(layers)
    for a, b in zip(alone, together, strict=True):
        assert (a.layer, a.side, a.option, a.tokens) == (b.layer, b.side, b.option, b.tokens)
        assert b.loss == pytest.approx(a.loss, rel=1e-3)
        assert b.loss_start == pytest.approx(a.loss_start, rel=1e-5)


@grouped
def test_a_killed_group_goes_on_and_ends_with_the_same_bytes(parent, rows, tmp_path):
    space = search_space(EVERY, parent.blocks)
    config = dataclasses.replace(CONFIG, group=3)
    make(parent, space, rows, tmp_path / "whole", config)
    made: list[VariantRecord] = []

    def kill(record: VariantRecord) -> None:
        made.append(record)
        if len(made) == 5:  # in the middle of the second group
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(parent, space, rows, tmp_path / "cut", config, log=kill)
    make(parent, space, rows, tmp_path / "cut", config)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize("place", PLACES)
def test_where_parent_and_activations_are_changes_no_bit(
    built, parent_dir, space, rows, tmp_path, place
):
    streamed = load_parent(str(parent_dir), torch.device("cpu"), torch.float32, layers=0)
    store = Store(place, torch.device("cpu"), tmp_path)
    make(streamed, space, rows, tmp_path / "library", store=store)
    assert files(tmp_path / "library") == files(built[0])


def test_a_variant_that_no_longer_learns_stops(parent, space, rows, tmp_path):
    long = DistillConfig(tokens=6000, batch=4, learning_rate=3e-3)
    whole = make(parent, space, rows, tmp_path / "whole", long)
    early = dataclasses.replace(long, early_stop=0.5)
    stopped = make(parent, space, rows, tmp_path / "early", early)
    assert all(b.tokens < 0.5 * a.tokens for a, b in zip(whole, stopped, strict=True))
    assert all(b.loss <= b.loss_start for b in stopped)
    never = dataclasses.replace(long, early_stop=1e-9)
    assert sum(r.tokens for r in make(parent, space, rows, tmp_path / "n", never)) > sum(
        r.tokens for r in stopped
    )


def test_what_training_takes_is_counted(parent, space, rows, tmp_path):
    speed = Speed()
    records = make(parent, space, rows, tmp_path, speed=speed)
    assert speed.tokens == sum(record.tokens for record in records) and speed.seconds > 0
    linear = 2 * 32 * 32  # FLOPs of a product with a token
    ffn, kv1 = 3 * 2 * 32 * 48, 2 * (2 * 32 * 32 + 2 * 8 * 32)
    tokens = records[0].tokens
    least = {  # attention scores come on top
        "kv1": 3 * kv1 + 2 * ffn, "linear": 3 * linear + 2 * ffn, "ffn24": 3 * ffn // 2, "own": 0
    }  # fmt: skip
    products = tokens * (least["kv1"] + least["linear"] + least["ffn24"] + 3 * linear) * 2
    assert products < speed.flops < 1.2 * products


def test_weights_of_16_bits_are_trained_in_32(parent_dir, rows, tmp_path):
    """Steps that bfloat16 rounds away add up: its weights have eight bits, steps are smaller."""
    low = load_parent(str(parent_dir), torch.device("cpu"), torch.bfloat16)
    config = SpaceConfig(kv_heads=[], ffn_fractions=[0.5], layers=[0], attention_linear=False)
    space = search_space(config, low.blocks)
    slow = DistillConfig(init="paper", tokens=40_000, batch=8, learning_rate=2e-5, warmup=0.0)
    records = make(low, space, rows, tmp_path, slow)
    for record in records:
        assert record.loss < 0.99 * record.loss_start
    stored = Library(tmp_path).state(0, FFNOption("mlp", 24))
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
