"""The training loop: what a step computes, what it draws, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_images import make_images
from tiny_training import (
    AUGMENT,
    BUDGETS,
    KINDS,
    TRAIN,
    asked_of,
    batch_of,
    make_trainer,
    weights_of,
)
from torch.nn import functional

from adaptive.core.errors import UserError
from adaptive.core.run import Ranks
from adaptive.core.solvers.quadtree import Leaves
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.settings import AugmentConfig, DistillConfig, EvaluateConfig
from adaptive.quadformer.train.loss import distillation, soft_cross_entropy
from adaptive.quadformer.train.optimizer import learning_rate, make_optimizer, set_rate


def test_it_learns(tmp_path):
    """Classes are told apart by colour: a few epochs without augmentation suffice."""
    off = AugmentConfig(crop=(1.0, 1.0), flip=0.0)
    changes = {
        "epochs": 20,
        "learning_rate": 3e-3,
        "validate_epochs": 10,
        "smoothing": 0.0,
        "ema": 0.5,
    }
    records, found = [], []

    def validate(trainer):
        judged = trainer.models["ema"]
        found.append(accuracy(judged, trainer.images, 10, EvaluateConfig()))

    trainer = make_trainer(
        tmp_path, augment=off, log=lambda **r: records.append(r), on_epoch=validate, **changes
    )
    trainer.run()
    assert len(found) == 2 and found[-1] == 100.0
    assert records[0]["step"] == 1 and records[-1]["step"] == trainer.steps == 60
    assert records[-1]["loss"] < 0.3 < records[0]["loss"]


def test_budgets_are_drawn_and_the_same_on_all_ranks(tmp_path):
    trainer = make_trainer(tmp_path)
    calls = asked_of(trainer.model)
    trainer.run()
    drawn = [call["num_tokens"] for call in calls]
    assert drawn == [trainer.batches.tokens(step, BUDGETS) for step in range(9)]
    assert len(set(drawn)) > 1
    full = make_trainer(tmp_path / "full", num_tokens=[])
    calls = asked_of(full.model)
    full.run()
    assert {call["num_tokens"] for call in calls} == {16}


@pytest.mark.parametrize("kind", KINDS)
def test_accumulation_changes_no_gradient(tmp_path, kind):
    """Up to rounding, and but for what is drawn in the model, which is off here."""
    found = []
    for parts in (1, 4):
        # All tokens: those of the batch that entropy shares out depend on who is in it.
        trainer = make_trainer(tmp_path, kind, accumulate=parts, num_tokens=[16])
        trainer.model.eval()
        trainer.gradients(0, batch_of(trainer))
        slopes = [w.grad for w in trainer.model.parameters() if w.grad is not None]
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    assert found[0].norm() > 0.1
    assert (found[0] - found[1]).norm() < 1e-4 * found[0].norm()


def test_averages_follow_their_law(tmp_path):
    """The average moves by 1 - decay towards the weights; the decay rises to ``ema``."""
    trainer = make_trainer(tmp_path, ema=0.4)
    expected = None
    for step in range(6):
        trainer.update(step, batch_of(trainer))
        weights = trainer.model.vit.head.weight.detach()
        decay = 0.0 if step == 0 else min(0.4, 1 - (1 + step) ** (-2 / 3))
        expected = weights.clone() if expected is None else decay * expected + (1 - decay) * weights
        assert torch.allclose(trainer.ema.module.vit.head.weight, expected, atol=1e-6)


@pytest.mark.parametrize("teacher", ["ema", "a directory"])
def test_a_teacher_sees_the_full_grid(tmp_path, teacher):
    given = None if teacher == "ema" else make_trainer(tmp_path, seed=3).model.eval()
    distill = DistillConfig(teacher=teacher, weight=1.0)
    trainer = make_trainer(tmp_path, teacher=given, distill=distill, num_tokens=[7], ema=0.9)
    judge = given or trainer.ema.module
    seen, own = asked_of(judge), asked_of(trainer.model)
    loss = trainer.update(0, batch_of(trainer))
    assert seen == [{"num_tokens": 16}] and own == [{"num_tokens": 7}]
    if given is not None:
        assert loss > 0 and all(weight.grad is None for weight in given.parameters())


def test_saliency_maps_take_the_priors_place(tmp_path):
    trainer = make_trainer(tmp_path, maps=True, num_tokens=[7])
    calls = asked_of(trainer.model)
    trainer.update(0, batch_of(trainer))
    (call,) = calls
    assert isinstance(call["leaves"], Leaves) and call["leaves"].node_BN.shape == (8, 7)


@pytest.mark.parametrize(
    "kind, tokens, words",
    [
        ("quadformer", [7, 8], "num_tokens=8 is not feasible .* choose 7 or 10"),
        ("uniform", [17], "num_tokens=17 is out of range: choose 1 to 16"),
        ("tome", [16, 4], "num_tokens=4: a layer merges half .* choose 6 to 16"),
        ("entropy", [17], "num_tokens=17 is out of range: choose 1 to 16"),
    ],
)
def test_budgets_that_the_model_cannot_spend_are_told_at_once(tmp_path, kind, tokens, words):
    with pytest.raises(UserError, match=f"^train.{words}"):
        make_trainer(tmp_path, kind, num_tokens=tokens)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="train.batch=25 is more than the 24 training images"):
        make_trainer(tmp_path, batch=25)
    with pytest.raises(UserError, match="train.batch=8 must be a multiple of 6: 2 processes times"):
        make_trainer(tmp_path, accumulate=3, ranks=Ranks(0, 2))
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.vit.head.bias.fill_(math.nan)
    with pytest.raises(UserError, match="the loss is nan at step 1: lower train.learning_rate"):
        trainer.run()


@pytest.fixture
def captured(monkeypatch, compiling):
    """Models are captured without breaks and run as they are; the rest is not compiled.

    The graphs that were captured.
    """
    compiler, graphs = torch.compile, []

    def run(graph, _):
        graphs.append(graph)
        return graph

    def capture(model, dynamic):
        if not isinstance(model, torch.nn.Module):
            return model
        return compiler(model, dynamic=dynamic, backend=run, fullgraph=True)

    monkeypatch.setattr(torch, "compile", capture)
    return graphs


@pytest.mark.parametrize(
    "kind", [k if k == "uniform" else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_compiled_steps_are_eager_ones(tmp_path, captured, kind):
    """One program for each budget, whatever the images."""
    found = []
    for compiled in (False, True):
        trainer = make_trainer(tmp_path, kind, compile=compiled, num_tokens=[7, 16])
        for module in trainer.model.modules():  # padding changes what is drawn
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.0
        drawn = [trainer.batches.tokens(step, [7, 16]) for step in range(9)]
        for step in (drawn.index(7), drawn.index(16), len(drawn) - 1):
            trainer.update(step, batch_of(trainer, step))
        found.append(weights_of(trainer))
    assert len(captured) == 2
    assert torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.slow
def test_compiled_with_maps(tmp_path, captured):
    found = []
    for compiled in (False, True):
        trainer = make_trainer(tmp_path, maps=True, compile=compiled, num_tokens=[7])
        trainer.update(0, batch_of(trainer))
        found.append(weights_of(trainer))
    assert len(captured) == 1 and torch.allclose(found[0], found[1], atol=1e-4)


def test_model_teacher_and_preparation_are_compiled_once(tmp_path, monkeypatch):
    programs = []
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: programs.append(f) or f)
    trainer = make_trainer(tmp_path, compile=True, distill=DistillConfig(teacher="ema"))
    for step in range(2):
        trainer.update(step, batch_of(trainer, step))
    assert programs[1:] == [trainer.model, trainer.ema.module]
    assert programs[0].__self__ is trainer.prepared


@pytest.mark.parametrize("before, after", [(50, 50), (2, 2 * len(BUDGETS) + 2)])
def test_the_compilers_limit_is_raised_and_never_lowered(tmp_path, before, after):
    import timm.optim  # noqa: F401 - which sets the limit to a million, once

    with torch._dynamo.config.patch(recompile_limit=before):
        make_trainer(tmp_path, compile=True)
        assert torch._dynamo.config.recompile_limit == after


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
    config = replace(
        TRAIN, epochs=epochs, warmup_epochs=warmup, learning_rate=1.0, learning_rate_end=0.1
    )
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
    model.tokenizer.scale_embed = torch.nn.Parameter(torch.zeros(3, 24))
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
    # The scale embedding is a table, and what the model says of it counts.
    assert groups[id(model.tokenizer.scale_embed)] == (1.0, 0.0)


def test_what_is_augmented_depends_on_the_rank(tmp_path):
    one = make_trainer(tmp_path)
    two = make_trainer(tmp_path)
    two.batches = replace(two.batches, rank=1)
    batch = batch_of(one)
    images = [trainer.prepare(0, batch)[0] for trainer in (one, one, two)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert AUGMENT.mixup and len(make_images().classes) == 3
