"""Variants in closed form and distilled, children made of them, and their scores."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_images import SIZE, make_images
from tiny_vit_puzzle import make_parent

from adaptive.quadformer.models import load_trained, save_trained
from adaptive.quadformer.puzzle import local
from adaptive.quadformer.puzzle.children import distil_whole, hollow, realise_child
from adaptive.quadformer.puzzle.images import Augmented, Parts, plain_batches
from adaptive.quadformer.puzzle.initialise import block_moments, variant
from adaptive.quadformer.puzzle.library import Library, VariantRecord
from adaptive.quadformer.puzzle.score import measured_loss, repaired, score_at
from adaptive.quadformer.puzzle.settings import GlobalConfig, LibraryConfig, SpaceConfig
from adaptive.quadformer.puzzle.space import search_space
from adaptive.quadformer.puzzle.trace import Trace, kl
from adaptive.quadformer.settings import AugmentConfig
from adaptive.quadformer.slim import slim_blocks
from adaptive.quadformer.train.trainer import Trainer

TOKENS = (7, 10, 16)
GRID = 16


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "area"])
def world(request, tmp_path_factory):
    """A parent with a library of closed-form variants, kept as it is by every test."""
    home = tmp_path_factory.mktemp("world")
    make_parent(home / "parent", area_attention=request.param)
    parent = load_trained(home / "parent", "model", kind="quadformer")
    slim_blocks(parent.model.vit)
    parent.model.requires_grad_(False)
    blocks = list(parent.model.vit.blocks)
    space = search_space([block.size for block in blocks], SpaceConfig(multiple=8))
    image_BCHW = 2 * torch.rand(12, 3, SIZE, SIZE) - 1
    halves = [(group.block, group.half) for group in space]
    moments = block_moments(parent.model, [(image_BCHW, n) for n in TOKENS], halves)
    library, variants = Library(home / "library"), {}
    for group in space:
        for size in group.variants:
            made = variant(blocks[group.block], group, size, moments[group.block, group.half], 1e-6)
            variants[group, size] = made
            library.save(group, made, VariantRecord(group.block, group.half, size, 1, 0.5, 0.5, 0))
    return SimpleNamespace(
        parent=parent,
        model=parent.model,
        space=space,
        library=library,
        variants=variants,
        moments=moments,
        image_BCHW=image_BCHW,
        home=home,
    )


def batches(world):
    return iter([(world.image_BCHW, torch.arange(12) % 3)])


@pytest.mark.parametrize("tokens", [7, GRID])
def test_a_trace_ends_where_the_model_does(world, tokens):
    logits_BK = world.model(world.image_BCHW, num_tokens=tokens)
    trace = Trace(world.model, world.image_BCHW, tokens)
    torch.testing.assert_close(trace.logits_BK, logits_BK)
    for index in range(2):
        torch.testing.assert_close(trace.logits(index, trace.enters(index + 1)), logits_BK)
        own = trace.blocks[index].feed(trace.attended(index))
        torch.testing.assert_close(own, trace.enters(index + 1))


def test_a_fit_with_everything_kept_is_the_parent(world):
    for group in world.space:
        block = world.model.vit.blocks[group.block]
        moments = world.moments[group.block, group.half]
        made = variant(block, group, group.sizes[0], moments, 1e-12)
        for name, weight in made.state_dict().items():
            torch.testing.assert_close(weight, block.state_dict()[name], rtol=1e-3, atol=1e-3)


def test_a_fit_imitates_better_than_what_is_cut_away(world):
    """On other images, too; and the parent is left as it was."""
    group = world.space[1]
    size = group.variants[-1]
    fitted = world.variants[group, size]
    plain = copy.deepcopy(fitted)
    block = world.model.vit.blocks[group.block]
    rows = [int((block.mlp.fc1.weight == row).all(1).nonzero()) for row in fitted.mlp.fc1.weight]
    plain.mlp.fc2.weight.data = block.mlp.fc2.weight[:, rows].clone()
    plain.mlp.fc2.bias.data = block.mlp.fc2.bias.clone()
    trace = Trace(world.model, 2 * torch.rand(6, 3, SIZE, SIZE) - 1, 10)
    found = local.errors(trace, {(group, size): fitted})[group, size]
    cut = local.errors(trace, {(group, size): plain})[group, size]
    assert 0 < found < 0.9 * cut
    assert rows == sorted(rows)  # channels keep their order


def test_the_parents_own_options_make_the_parent(world):
    own = [0] * len(world.space)
    child = realise_child(world.parent, world.library, world.space, own, 10)
    for tokens in TOKENS:
        torch.testing.assert_close(
            child.model(world.image_BCHW, num_tokens=tokens),
            world.model(world.image_BCHW, num_tokens=tokens),
            rtol=0,
            atol=1e-5,
        )
    assert child.model.num_tokens == 10


@pytest.mark.parametrize("choice", [[1, 2, 3, 4], [3, 0, 2, 1], [3, 4, 3, 4]])
def test_a_child_has_the_chosen_halves_and_loads_again(world, choice, tmp_path):
    child = realise_child(world.parent, world.library, world.space, choice, 7)
    sizes = [group.sizes[k] for group, k in zip(world.space, choice, strict=True)]
    assert [n for block in child.model.vit.blocks for n in block.size] == sizes
    trace = Trace(world.model, world.image_BCHW, 7)
    x_BLD = trace.enters(0)
    for index in range(2):
        for group, size in zip(world.space[2 * index :][:2], sizes[2 * index :][:2], strict=True):
            half = world.variants.get((group, size))
            if size == group.sizes[0]:
                half = world.model.vit.blocks[index]
            if size:
                extras = trace.extras[index]
                attends = group.half == "attention"
                x_BLD = half.attend(x_BLD, **extras) if attends else half.feed(x_BLD)
    logits_BK = child.model(world.image_BCHW)
    torch.testing.assert_close(logits_BK, trace.logits(1, x_BLD), rtol=0, atol=1e-4)
    save_trained(tmp_path, child.config, child.classes, {"model": child.model})
    again = load_trained(tmp_path).model
    assert torch.equal(again(world.image_BCHW, num_tokens=7), logits_BK)
    shapes = {k: v.shape for k, v in child.model.state_dict().items()}
    empty = hollow(world.model, world.space, choice)
    assert {k: v.shape for k, v in empty.state_dict().items()} == shapes


@pytest.mark.parametrize("tokens", [7, GRID])
def test_a_score_is_what_a_child_of_one_replacement_loses_more(world, tokens):
    scores = score_at(world.model, world.space, world.library, batches(world), tokens, False)
    assert scores.tokens == tokens and scores.images == 12
    full_BK = world.model(world.image_BCHW)
    base_BK = world.model(world.image_BCHW, num_tokens=tokens)
    base = float(kl(full_BK, base_BK).mean())
    assert scores.base["kl"] == pytest.approx(base, abs=1e-6)
    assert tokens < GRID or scores.base == {"kl": 0.0, "accuracy": 0.0}
    for metric in ("kl", "accuracy"):
        assert [row[0] for row in scores.values[metric]] == [0.0] * len(world.space)
    for g, k in ((0, 2), (1, 4), (2, 3), (3, 1)):
        choice = [k if i == g else 0 for i in range(len(world.space))]
        child: object = realise_child(
            world.parent, world.library, world.space, choice, tokens
        ).model
        found = measured_loss(world.model, child, batches(world), tokens, False)
        for metric, value in found.items():
            wanted = value - scores.base[metric]
            assert scores.values[metric][g][k] == pytest.approx(wanted, abs=1e-5)
    for row in repaired(scores, "kl"):
        assert row[0] == 0 and row == sorted(row)


def augmented(world, seed: int = 0) -> Augmented:
    images = make_images(24)
    return Augmented(images, torch.arange(24), 8, world.model, AugmentConfig(), seed)


def copies(world) -> dict:
    """The closed-form variants with something to learn: some noise on their weights."""
    torch.manual_seed(3)
    made = copy.deepcopy(world.variants)
    for half in made.values():
        for weight in half.parameters():
            weight.data.add_(0.05 * torch.randn_like(weight))
    return made


def test_local_distillation_lowers_every_loss_and_leaves_the_parent(world, tmp_path):
    made, before = copies(world), copy.deepcopy(world.model.state_dict())
    config = LibraryConfig(steps=40, batch=8, learning_rate=3e-3)
    image_BCHW = next(plain_batches(make_images(12), torch.arange(12), 12, world.model))[0]

    def losses():
        return local.held_out_errors(world.model, made, [image_BCHW], TOKENS, False)

    start = losses()
    records = []
    local.distil(
        world.model,
        made,
        augmented(world),
        TOKENS,
        config,
        tmp_path,
        amp=False,
        log=lambda **record: records.append(record),
    )
    found = losses()
    assert all(found[key] < start[key] for key in start)
    assert len(records) == 40
    for name, weight in world.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_a_distillation_that_was_killed_goes_on_to_the_same_weights(world, tmp_path):
    class Killed(Exception):
        pass

    def until(stop: int):
        def track(steps, _):
            for step in steps:
                if step == stop:
                    raise Killed
                yield step

        return track

    config = LibraryConfig(steps=6, batch=8, checkpoint_seconds=0)
    given = (world.model, augmented(world), TOKENS, config)
    whole, parts = copies(world), copies(world)

    def run(made, work, **options):
        work.mkdir(exist_ok=True)
        local.distil(given[0], made, *given[1:], work, amp=False, **options)

    run(whole, tmp_path / "a")
    with pytest.raises(Killed):
        run(parts, tmp_path / "b", track=until(4))
    parts = copies(world)
    run(parts, tmp_path / "b")
    # Also where the kill came before they were saved: nothing is trained again.
    parts = copies(world)
    run(parts, tmp_path / "b", track=until(0))
    for key, half in whole.items():
        for name, weight in half.state_dict().items():
            assert torch.equal(weight, parts[key].state_dict()[name]), (key, name)


def test_a_child_that_was_not_saved_yet_is_not_trained_again(world, tmp_path, monkeypatch):
    own, config = [0] * len(world.space), GlobalConfig(epochs=1, batch=8, warmup_epochs=0)
    options = {"amp": False, "compiled": False, "seed": 0, "log": lambda **_: None}

    def train():
        child = realise_child(world.parent, world.library, world.space, own, 7)
        given = (child, world.parent, make_images(24), 7, config, AugmentConfig(), tmp_path)
        assert distil_whole(*given, **options) == 3
        return child.model.state_dict()

    def refuse(*_):
        raise AssertionError("trained again")

    first = train()
    monkeypatch.setattr(Trainer, "update", refuse)
    for name, weight in train().items():
        assert torch.equal(weight, first[name]), name


def test_the_parts_of_the_training_set_are_apart():
    parts = Parts.of(40, 10, 5, seed=1)
    numbers = [set(part.tolist()) for part in (parts.score, parts.held, parts.learn)]
    assert [len(part) for part in numbers] == [10, 5, 25]
    assert set().union(*numbers) == set(range(40))
