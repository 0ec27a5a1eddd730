"""The loss of global distillation is the paper's, padded, packed or recomputed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_puzzle import BOS, CHILDREN

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.gkd.loss import (
    TERMS,
    GKDLoss,
    Pair,
    _distances,
    _fused_distances,
    gkd_loss,
)
from adaptive.llm_puzzle.gkd.packing import ALIKE, Batch, first_fit, micro_batches
from adaptive.llm_puzzle.settings import GKDConfig


def test_terms_equal_plain_sums(student, parent, rows):
    """Row by row without padding; distances are summed over layers, averages are over tokens."""
    found = gkd_loss(student, parent.model, rows)
    kl, lm, cosine, mse, tokens, predicted = 0.0, 0.0, 0.0, 0.0, 0, 0
    for ids, n in zip(rows.ids_NT, rows.lengths_N.tolist(), strict=True):
        with torch.no_grad():
            ours, theirs = (
                model(ids[None, :n], output_hidden_states=True) for model in (student, parent.model)
            )
        assert len(ours.hidden_states) == 4
        for a, b in list(zip(ours.hidden_states, theirs.hidden_states, strict=True))[1:]:
            cosine += (1 - torch.cosine_similarity(a[0], b[0], dim=-1)).sum().item()
            mse += ((a - b).pow(2).mean(-1) / b.pow(2).mean(-1)).sum().item()
        logq, logp = (out.logits[0].log_softmax(-1) for out in (ours, theirs))
        kl += (logp.exp() * (logp - logq)).sum().item()
        lm -= logq[:-1].gather(-1, ids[1:n, None]).sum().item()
        tokens, predicted = tokens + n, predicted + n - 1
    assert found.cosine.item() == pytest.approx(cosine / tokens, rel=1e-4)
    assert found.mse.item() == pytest.approx(mse / tokens, rel=1e-4)
    assert found.kl.item() == pytest.approx(kl / tokens, rel=1e-4)
    assert found.lm.item() == pytest.approx(lm / predicted, rel=1e-4)


def test_the_parent_has_nothing_to_learn(parent, rows):
    loss = gkd_loss(parent.model, parent.model, rows)
    assert abs(loss.cosine.item()) < 1e-5 and abs(loss.kl.item()) < 1e-6 and loss.mse.item() == 0


def test_weights_of_the_terms():
    loss = GKDLoss(*(torch.tensor(v) for v in (2.0, 7.0, 3.0, 5.0)))
    assert TERMS == ("cosine", "mse", "kl", "lm")
    assert loss.total(GKDConfig()).item() == 5.0  # the paper's: cosine and KL, no LM loss
    assert loss.total(GKDConfig(cosine=0.5, mse=1.0, kl=2.0, lm=0.1)).item() == pytest.approx(14.5)


# --- packing ---


@pytest.mark.parametrize("alike", [1.0, ALIKE], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", CHILDREN)
def test_packed_rows_have_the_loss_of_single_rows(make_child, parent, rows, name, alike):
    """Windows, linear attention and empty layers included: no document sees another."""
    child = make_child(name)
    teacher = copy.deepcopy(child)
    torch.manual_seed(3)
    for weight in teacher.parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    batch = Batch.packed(rows, alike=alike)
    assert batch.groups is not None
    assert any(group.cells is not None for group in batch.groups) == (alike < 1)
    packed = GKDLoss.average(Pair(child, teacher)(batch), batch.tokens, batch.predicted)
    sums, tokens, predicted = torch.zeros(4), 0, 0
    for n, length in enumerate(rows.lengths_N.tolist()):
        one = gkd_loss(child, teacher, rows.select(torch.tensor([n])))
        sums += torch.tensor([one.cosine, one.mse, one.kl, 0]) * length
        sums[3] += one.lm * (length - 1)
        tokens, predicted = tokens + length, predicted + length - 1
    single = GKDLoss.average(sums, tokens, predicted)
    for term in TERMS:
        expected = getattr(single, term).item()
        assert getattr(packed, term).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_packing_drops_padding_and_keeps_every_token(rows):
    packed, padded = Batch.packed(rows), Batch.padded(rows)
    assert packed.ids_BT.shape == (1, rows.tokens) and packed.real_M is None
    assert torch.equal(padded.ids_BT, rows.ids_NT)
    for batch in (packed, padded):
        assert batch.tokens == rows.tokens and batch.predicted == rows.tokens - len(rows)
    assert (packed.ids_BT[packed.positions_BT == 0] == BOS).all()
    assert (packed.positions_BT == 0).sum() == len(rows)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("size", [None, 1, 3, 100])
def test_micro_batches_hold_every_document_once_and_no_more_than_their_size(
    rows, packing, parts, size
):
    batches = micro_batches(rows, packing, size, parts)
    assert sum(batch.tokens for batch in batches) == rows.tokens
    assert sum(batch.predicted for batch in batches) == rows.tokens - len(rows)
    assert len(batches) >= parts
    longest = int(rows.lengths_N.max())
    if size:
        assert all(batch.ids_BT.numel() <= size * longest for batch in batches)
    elif parts == 1:
        assert len(batches) == 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(30, 90))
def test_first_fit_uses_every_document_once_and_few_rows(lengths, room):
    bins = first_fit(lengths, room)
    assert sorted(n for documents in bins for n in documents) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in documents) <= room for documents in bins)
    # No two rows fit into one.
    filled = sorted(sum(lengths[n] for n in documents) for documents in bins)
    assert len(filled) < 2 or filled[0] + filled[1] > room


# --- what must not change the result ---


def gradients(child, parent, batch, **options) -> list[torch.Tensor]:
    child = copy.deepcopy(child).requires_grad_(True)
    sums = Pair(child, parent, **options)(batch)
    GKDLoss.average(sums, batch.tokens, batch.predicted).total(
        GKDConfig(mse=0.5, lm=0.3)
    ).backward()
    return [weight.grad for weight in child.parameters() if weight.grad is not None]


def test_gradients_of_packed_and_recomputed_layers_are_the_plain_ones(student, parent, rows):
    plain = gradients(student, parent.model, Batch.padded(rows))
    packed = gradients(student, parent.model, Batch.packed(rows))
    grouped = gradients(student, parent.model, Batch.packed(rows, alike=ALIKE))
    again = gradients(student, parent.model, Batch.padded(rows), recompute=True)
    assert len(plain) == sum(1 for _ in student.parameters())
    for a, b, c, d in zip(plain, packed, again, grouped, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(c, a, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(d, a, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # compiles
def test_fused_distances_are_the_plain_ones():
    torch.manual_seed(0)
    for tokens in (7, 12, 0):  # a blank batch has none
        ours, theirs = torch.randn(2, tokens, 16)
        ours.requires_grad_(True)
        found = [measure(ours, theirs) for measure in (_distances, _fused_distances())]
        torch.testing.assert_close(*found)
        slopes = [torch.autograd.grad((2 * f[0] + f[1]), ours)[0] for f in found]
        torch.testing.assert_close(*slopes)


def test_micro_batches_add_up_and_a_blank_one_adds_nothing(student, parent, rows):
    pair = Pair(student, parent.model)
    for packing in (True, False):
        parts = micro_batches(rows, packing, 3)
        assert len(parts) > 2
        total = sum(pair(part) for part in parts)
        torch.testing.assert_close(total, pair(Batch.padded(rows)), rtol=1e-5, atol=1e-6)
        blank = parts[0].blank()
        assert blank.tokens == blank.predicted == 0 and pair(blank).abs().max() == 0


def test_random_rows_of_one_token_are_no_exception(student, parent):
    rows = Rows.pack([[BOS], [BOS, 5, 9], [BOS]])
    found = gkd_loss(student, parent.model, rows, packing=True)
    assert all(torch.isfinite(value) for value in vars(found).values())
    alone = gkd_loss(student, parent.model, Rows.pack([[BOS]]))
    assert alone.lm == 0 and torch.isfinite(alone.kl)
