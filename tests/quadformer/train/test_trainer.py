"""The training loop: what a step computes, what it draws, and that it learns."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_images import WholeImage, make_images
from tiny_training import AUGMENT, TRAIN, make_trainer, weights_of
from torch.nn import functional

from adaptive.core.errors import UserError
from adaptive.core.run import Ranks
from adaptive.core.solvers.quadtree import Leaves
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.settings import AugmentConfig, DistillConfig, EvaluateConfig
from adaptive.quadformer.train.loss import distillation, soft_cross_entropy
from adaptive.quadformer.train.optimizer import learning_rate, make_optimizer, set_rate


def first_batch(trainer):
    return next(iter(trainer.batches.read(trainer.images, range(1))))[1]


def test_it_learns(tmp_path):
    """Classes are told apart by colour: a few epochs without augmentation suffice."""
    off = AugmentConfig(crop=(1.0, 1.0), flip=0.0)
    changes = {"epochs": 20, "lr": 3e-3, "validate_epochs": 10, "smoothing": 0.0, "ema": 0.5}
    records, found = [], []

    def validate(trainer):
        judged = trainer.models["ema"]
        found.append(accuracy(judged, trainer.images, 16, EvaluateConfig()))

    trainer = make_trainer(
        tmp_path, augment=off, log=lambda **r: records.append(r), on_epoch=validate, **changes
    )
    trainer.run()
    assert len(found) == 2 and found[-1] == 100.0
    assert records[0]["step"] == 1 and records[-1]["step"] == trainer.steps == 60
    assert records[-1]["loss"] < 0.3 < records[0]["loss"]


def test_budgets_are_drawn_and_the_same_on_all_ranks(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.run()
    drawn = trainer.model.seen
    assert drawn == [trainer.batches.tokens(step, [4, 7, 16]) for step in range(9)]
    assert len(set(drawn)) > 1
    full = make_trainer(tmp_path / "full", num_tokens=[])
    full.run()
    assert set(full.model.seen) == {16}


def test_accumulation_changes_no_gradient(tmp_path):
    """Up to rounding, and but for what is drawn in the model, which is off here."""
    found = []
    for parts in (1, 4):
        trainer = make_trainer(tmp_path, accumulate=parts)
        trainer.model.eval()
        trainer.update(0, first_batch(trainer))
        found.append(weights_of(trainer))
    # Adam's first step is the sign of the gradient, so weights without one are left out by size.
    assert torch.allclose(found[0], found[1], atol=1e-4)


def test_averages_follow_their_law(tmp_path):
    """The average moves by 1 - decay towards the weights; the decay rises to ``ema``."""
    trainer = make_trainer(tmp_path, ema=0.4)
    expected = None
    for step in range(6):
        trainer.update(step, first_batch(trainer))
        weights = trainer.model.vit.head.weight.detach()
        decay = 0.0 if step == 0 else min(0.4, 1 - (1 + step) ** (-2 / 3))
        expected = weights.clone() if expected is None else decay * expected + (1 - decay) * weights
        assert torch.allclose(trainer.ema.module.vit.head.weight, expected, atol=1e-6)


@pytest.mark.parametrize("teacher", ["ema", "a directory"])
def test_a_teacher_sees_the_full_grid(tmp_path, teacher):
    given = None
    if teacher != "ema":
        given = WholeImage(copy.deepcopy(make_trainer(tmp_path, seed=3).model.vit)).eval()
    distill = DistillConfig(teacher=teacher, weight=1.0)
    trainer = make_trainer(tmp_path, teacher=given, distill=distill, num_tokens=[4], ema=0.9)
    judge = given or trainer.ema.module
    loss = trainer.update(0, first_batch(trainer))
    assert judge.seen == [16] and trainer.model.seen == [4]
    if given is not None:
        assert loss > 0 and all(weight.grad is None for weight in given.parameters())


def test_saliency_maps_take_the_priors_place(tmp_path):
    trainer = make_trainer(tmp_path, maps=True, num_tokens=[7])
    trainer.update(0, first_batch(trainer))
    (leaves,) = trainer.model.seen
    assert isinstance(leaves, Leaves) and leaves.node_BN.shape == (8, 7)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="train.batch=25 is more than the 24 training images"):
        make_trainer(tmp_path, batch=25)
    with pytest.raises(UserError, match="train.batch=8 must be a multiple of 6: 2 processes times"):
        make_trainer(tmp_path, accumulate=3, ranks=Ranks(0, 2))
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.vit.head.bias.fill_(math.nan)
    with pytest.raises(UserError, match="the loss is nan at step 1: lower train.lr"):
        trainer.run()


def test_compiled_steps_are_eager_ones(tmp_path, monkeypatch, compiling):
    """Captured without breaks; each budget is a program of its own."""
    compiler, found = torch.compile, []

    def capture(model, dynamic):
        return compiler(model, dynamic=dynamic, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", capture)
    for compiled in (False, True):
        trainer = make_trainer(tmp_path, compile=compiled)
        for step in range(3):
            trainer.update(step, first_batch(trainer))
        found.append(weights_of(trainer))
    assert torch.allclose(found[0], found[1], atol=1e-5)


# --- losses and rates ---


def test_soft_cross_entropy_is_cross_entropy_with_hard_labels():
    logits_BK, label_B = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = soft_cross_entropy(logits_BK, functional.one_hot(label_B, 4).float())
    assert torch.allclose(found, functional.cross_entropy(logits_BK, label_B))


@given(temperature=st.floats(0.5, 8.0))
def test_distillation_is_zero_for_the_teacher_and_positive_for_others(temperature):
    teacher_BK = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    assert abs(distillation(teacher_BK, teacher_BK, temperature)) < 1e-5
    assert distillation(teacher_BK.flip(0), teacher_BK, temperature) > 0


@given(epochs=st.integers(2, 40), per_epoch=st.integers(1, 20), warmup=st.floats(0, 1.5))
def test_rates_rise_and_fall(epochs, per_epoch, warmup):
    config = replace(TRAIN, epochs=epochs, warmup_epochs=warmup, lr=1.0, lr_end=0.1)
    steps = epochs * per_epoch
    rates = [learning_rate(step, steps, per_epoch, config) for step in range(steps + 1)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) <= 1.0 and rates[-1] == pytest.approx(0.1)


def test_layers_decay_and_vectors_do_not(tmp_path):
    model = make_trainer(tmp_path).model
    model.extra = torch.nn.Linear(4, 4)
    config = replace(TRAIN, layer_decay=0.5, weight_decay=0.1)
    optimizer = make_optimizer(model, config, fused=False)
    set_rate(optimizer, 1.0)
    groups = {
        id(weight): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    assert len(groups) == len(list(model.parameters()))
    vit = model.vit
    assert groups[id(vit.head.weight)] == groups[id(model.extra.weight)] == (1.0, 0.1)
    assert groups[id(vit.blocks[1].mlp.fc1.weight)] == (0.5, 0.1)
    assert groups[id(vit.blocks[0].mlp.fc1.weight)] == (0.25, 0.1)
    assert groups[id(vit.pos_embed)] == (0.125, 0.0)
    assert groups[id(vit.head.bias)][1] == groups[id(model.extra.bias)][1] == 0.0


def test_what_is_augmented_depends_on_the_rank(tmp_path):
    one = make_trainer(tmp_path)
    two = make_trainer(tmp_path)
    two.batches = replace(two.batches, rank=1)
    batch = first_batch(one)
    images = [trainer.prepare(0, batch)[0] for trainer in (one, one, two)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert AUGMENT.mixup and len(make_images().classes) == 3
