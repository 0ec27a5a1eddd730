"""Training of global distillation: the loss falls, and the seed decides."""

from __future__ import annotations

import copy

import pytest
import torch

from adaptive.llm_puzzle.config import GKDConfig
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.gkd import distill_globally

CONFIG = GKDConfig(tokens=3000, batch_size=5, learning_rate=3e-3)


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
    assert set(logged[0][1]) == {"cosine", "mse", "kl", "lm", "lr"}
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
        distill_globally(child, parent.model, rows, GKDConfig(tokens=500, batch_size=4), seed)
        results.append(torch.cat([weight.flatten() for weight in child.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_no_tokens_change_nothing(student, parent, rows):
    before = copy.deepcopy(student.state_dict())
    assert distill_globally(student, parent.model, rows, GKDConfig(tokens=0), 0) == 0
    for name, weight in student.state_dict().items():
        assert torch.equal(weight, before[name])
