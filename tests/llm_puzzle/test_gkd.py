"""Global distillation: the loss is the paper's, and it falls."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import GKDConfig
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.gkd import GKDLoss, distill_globally, gkd_loss
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.realise import realise

CONFIG = GKDConfig(tokens=3000, batch_size=5, learning_rate=3e-3)


@pytest.fixture
def student(parent):
    """The parent without its middle layer."""
    empty = {"attention": {"kind": "no_op"}, "ffn": {"kind": "no_op"}}
    blocks = list(parent.blocks)
    blocks[1] = BlockOption.from_config(empty)
    return realise(parent.model, blocks, Library(Path()))


def test_terms_equal_plain_sums(student, parent, rows):
    """Row by row without padding; cosines are summed over layers, averages are over tokens."""
    found = gkd_loss(student, parent.model, rows)
    kl, lm, cosine, tokens, predicted = 0.0, 0.0, 0.0, 0, 0
    for ids, n in zip(rows.ids_NT, rows.lengths_N.tolist(), strict=True):
        with torch.no_grad():
            ours, theirs = (
                model(ids[None, :n], output_hidden_states=True) for model in (student, parent.model)
            )
        assert len(ours.hidden_states) == 4
        for a, b in list(zip(ours.hidden_states, theirs.hidden_states, strict=True))[1:]:
            cosine += (1 - torch.cosine_similarity(a[0], b[0], dim=-1)).sum().item()
        logq, logp = (out.logits[0].log_softmax(-1) for out in (ours, theirs))
        kl += (logp.exp() * (logp - logq)).sum().item()
        lm -= logq[:-1].gather(-1, ids[1:n, None]).sum().item()
        tokens, predicted = tokens + n, predicted + n - 1
    assert found.cosine.item() == pytest.approx(cosine / tokens, rel=1e-4)
    assert found.kl.item() == pytest.approx(kl / tokens, rel=1e-4)
    assert found.lm.item() == pytest.approx(lm / predicted, rel=1e-4)


def test_the_parent_has_nothing_to_learn(parent, rows):
    loss = gkd_loss(parent.model, parent.model, rows)
    assert abs(loss.cosine.item()) < 1e-5 and abs(loss.kl.item()) < 1e-6


def test_weights_of_the_terms():
    loss = GKDLoss(torch.tensor(2.0), torch.tensor(3.0), torch.tensor(5.0))
    assert loss.total(GKDConfig()).item() == 5.0  # the paper's: cosine and KL, no LM loss
    assert loss.total(GKDConfig(cosine=0.5, kl=2.0, lm=0.1)).item() == pytest.approx(7.5)


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
    assert set(logged[0][1]) == {"cosine", "kl", "lm", "lr"}
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


def test_evaluation_equals_plain_sums(student, parent, rows):
    found = evaluate(student, rows, 3, parent.model)
    loss = kl = agree = 0.0
    tokens = 0
    for ids, n in zip(rows.ids_NT, rows.lengths_N.tolist(), strict=True):
        with torch.no_grad():
            logq, logp = (
                model(ids[None, :n]).logits[0, :-1].log_softmax(-1)
                for model in (student, parent.model)
            )
        loss -= logq.gather(-1, ids[1:n, None]).sum().item()
        kl += (logp.exp() * (logp - logq)).sum().item()
        agree += (logp.argmax(-1) == logq.argmax(-1)).sum().item()
        tokens += n - 1
    assert found.tokens == tokens
    assert found.loss == pytest.approx(loss / tokens, rel=1e-5)
    assert found.kl == pytest.approx(kl / tokens, rel=1e-4)
    assert found.top1 == pytest.approx(agree / tokens)


def test_the_parent_evaluates_to_itself(parent, rows):
    alone, compared = (evaluate(parent.model, rows, 8, p) for p in (None, parent.model))
    assert alone.loss == compared.loss and abs(compared.kl) < 1e-6
    assert alone.kl == 0 and alone.top1 == compared.top1 == 1


def test_evaluation_does_not_depend_on_the_batch(student, parent, rows):
    one, many = (evaluate(student, rows, size, parent.model) for size in (1, 20))
    assert one.loss == pytest.approx(many.loss, rel=1e-5) and one.kl == pytest.approx(many.kl)
    reverse: Rows = rows.select(torch.arange(len(rows)).flip(0))
    assert evaluate(student, reverse, 7).loss == pytest.approx(one.loss, rel=1e-5)
