"""Training of global distillation: the loss falls, and the seed decides."""

from __future__ import annotations

import copy

import pytest
import torch

from adaptive.core import UserError
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.gkd import distill_globally, gkd_loss
from adaptive.llm_puzzle.group_trainer import schedule
from adaptive.llm_puzzle.settings import GKDConfig, LongConfig

CONFIG = GKDConfig(tokens=3000, batch=5, learning_rate=3e-3)


def test_distillation_brings_the_child_nearer(student, parent, rows):
    before = evaluate(student, rows, 8, parent.model)
    logged: list[tuple[int, dict]] = []
    seen = distill_globally(
        student,
        parent.model,
        rows,
        CONFIG,
        0,
        log=lambda step, **values: logged.append((step, values)),
    )
    after = evaluate(student, rows, 8, parent.model)
    assert after.kl < 0.5 * before.kl and after.top1 > before.top1
    assert seen == pytest.approx(CONFIG.tokens, rel=0.2)
    assert [step for step, _ in logged] == list(range(len(logged)))
    assert set(logged[0][1]) == {"cosine", "mse", "kl", "lm", "lr", "tokens"}
    assert logged[-1][1]["tokens"] == seen
    assert logged[-1][1]["kl"] < logged[0][1]["kl"]
    assert not student.training and not any(w.requires_grad for w in student.parameters())


def test_the_parent_is_frozen(student, parent, rows):
    before = copy.deepcopy(parent.model.state_dict())
    distill_globally(student, parent.model, rows, CONFIG, 0)
    for name, weight in parent.model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert all(weight.grad is None for weight in parent.model.parameters())


def test_the_seed_decides(student, parent, rows):
    results = []
    for seed in (0, 0, 1):
        child = copy.deepcopy(student)
        distill_globally(child, parent.model, rows, GKDConfig(tokens=500, batch=4), seed)
        results.append(torch.cat([weight.flatten() for weight in child.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_no_tokens_change_nothing(student, parent, rows):
    before = copy.deepcopy(student.state_dict())
    assert distill_globally(student, parent.model, rows, GKDConfig(tokens=0), 0) == 0
    for name, weight in student.state_dict().items():
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize(
    "change",
    [
        {"packing": False},
        {"micro_batch": 1},
        {"packing": False, "micro_batch": 2},
        {"gradient_checkpointing": True},
    ],
    ids=str,
)
def test_how_a_step_is_computed_does_not_change_it(student, parent, rows, change):
    results, logged = [], []
    for more in ({}, change):
        child, config = copy.deepcopy(student), GKDConfig(tokens=300, batch=5, **more)
        losses: list[list[float]] = []
        seen = distill_globally(
            child,
            parent.model,
            rows,
            config,
            0,
            log=lambda _, losses=losses, **values: losses.append(list(values.values())),
        )
        results.append((seen, child.state_dict()))
        logged.append(torch.tensor(losses))
    assert results[0][0] == results[1][0]
    # Adam forgives a gradient of the wrong size; the averages say that it is the right one.
    torch.testing.assert_close(logged[0][0], logged[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logged[0], logged[1], rtol=1e-2, atol=1e-3)
    for name, weight in results[0][1].items():
        # Adam divides by the size of gradients, so rounding grows where they are near zero.
        torch.testing.assert_close(results[1][1][name], weight, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_updates_too_small_for_bfloat16_are_not_lost(student, parent, rows):
    """A learning rate at which rounding each update to the weight's type undoes most of them."""
    config = GKDConfig(tokens=3000, batch=5, learning_rate=3e-4)
    exact, half, naive = (copy.deepcopy(student) for _ in range(3))
    half.bfloat16()
    naive.bfloat16()
    teacher = copy.deepcopy(parent.model).bfloat16()
    before = evaluate(half, rows, 64, teacher).kl
    distill_globally(exact, parent.model, rows, config, 0)
    distill_globally(half, teacher, rows, config, 0)
    distill_in_half(naive, teacher, rows, config)
    drops = [
        before - evaluate(m, rows, 64, t).kl
        for m, t in ((exact, parent.model), (half, teacher), (naive, teacher))
    ]
    assert half.dtype == torch.bfloat16 and not any(w.grad is not None for w in half.parameters())
    assert drops[1] > 0.9 * drops[0] and drops[1] > 1.1 * drops[2] > 0, drops


def distill_in_half(child, teacher, rows, config) -> None:
    """The same training with an optimiser that changes the bfloat16 weights themselves."""
    steps = steps_for(config.tokens, rows, config.batch)
    child.requires_grad_(True)
    optimizer = torch.optim.AdamW(child.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    for step, index in enumerate(rows.training_indices(config.batch, steps, 0)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, steps, config.warmup)
        optimizer.zero_grad()
        gkd_loss(child, teacher, rows.select(index), packing=True).total(config).backward()
        torch.nn.utils.clip_grad_norm_(child.parameters(), config.grad_clip)
        optimizer.step()


def test_a_long_phase_follows_on_its_own_rows(student, parent, rows):
    long_rows = Rows.pack(
        [row[:n] * 3 for row, n in zip(rows.ids_NT.tolist(), rows.lengths_N.tolist(), strict=True)]
    )
    config = GKDConfig(tokens=300, batch=6, long=LongConfig(tokens=400, learning_rate=1e-4))
    logged: list[tuple[int, float]] = []
    seen = distill_globally(
        student,
        parent.model,
        rows,
        config,
        0,
        log=lambda step, **values: logged.append((step, values["lr"])),
        long_rows=long_rows,
    )
    assert [step for step, _ in logged] == list(range(len(logged)))
    assert seen == pytest.approx(700, rel=0.2)
    main = steps_for(300, rows, 6)
    assert max(rate for _, rate in logged[:main]) == config.learning_rate
    assert max(rate for _, rate in logged[main:]) == 1e-4
    # A third of the rows a step, three times as long each.
    assert len(logged) - main == steps_for(400, long_rows, 2)


def test_a_long_phase_without_rows_is_a_mistake(student, parent, rows):
    with pytest.raises(UserError, match="gkd.long.tokens=5 needs rows"):
        distill_globally(
            student, parent.model, rows, GKDConfig(tokens=0, long=LongConfig(tokens=5)), 0
        )
