"""Streamed comparisons equal the plain formulas, whatever the chunks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive.llm_puzzle import head
from adaptive.llm_puzzle.head import kl_divergence
from adaptive.llm_puzzle.reference import METRICS, Reference, sums


def plain(model, ours_BTH, theirs_BTH, rows) -> dict[str, float]:
    """The metrics token by token, in float64 with all logits at once."""
    found = dict.fromkeys(METRICS, 0.0)
    for b, n in enumerate(rows.lengths_N.tolist()):
        ours, theirs = ours_BTH[b, :n], theirs_BTH[b, :n]
        logq, logp = (model.lm_head(x).double().log_softmax(-1) for x in (ours, theirs))
        found["kl"] += kl_divergence(logp, logq).sum().item()
        found["cosine"] += (1 - torch.cosine_similarity(ours, theirs, dim=-1)).sum().item()
        targets = rows.ids_NT[b, 1:n, None]
        found["lm_loss"] += (logp - logq)[:-1].gather(-1, targets).sum().item()
    return found


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@torch.no_grad()
def test_comparisons_equal_plain_formulas(parent, rows, monkeypatch, chunk):
    monkeypatch.setattr(head, "CHUNK_LOGITS", chunk * parent.model.config.vocab_size)
    torch.manual_seed(0)
    theirs = torch.randn(*rows.ids_NT.shape, 32)
    finals = theirs + torch.randn(3, *rows.ids_NT.shape, 32) * torch.tensor([0.0, 0.3, 3.0]).view(
        3, 1, 1, 1
    )
    reference = Reference(parent.model, theirs, rows)
    found = reference.compare(finals)
    assert reference.counts == {
        "kl": rows.tokens, "cosine": rows.tokens, "lm_loss": rows.tokens - len(rows)
    }  # fmt: skip
    for c in range(3):
        wanted = plain(parent.model, finals[c], theirs, rows)
        for name in METRICS:
            assert found[name][c].item() == pytest.approx(wanted[name], rel=1e-4, abs=1e-4)
    assert found["kl"].argsort().tolist() == [0, 1, 2]


@given(seed=st.integers(0, 1000), k=st.integers(1, 12), scale=st.floats(0.01, 3))
@settings(max_examples=60)
def test_a_few_entries_are_a_bound_that_all_of_them_reach(seed, k, scale):
    generator = torch.Generator().manual_seed(seed)
    p, noise = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    logp, logits = (2 * p).log_softmax(-1), 2 * p + scale * noise
    target = torch.tensor([3, -1, 0, 11, -1])
    full, loss = sums(logp, logits, target)
    part, same = sums(logp, logits, target, logp.topk(k))
    assert part.item() <= full.item() + 1e-9 and part.item() >= -1e-9
    assert same.item() == loss.item()
    if k >= 11:  # the rest is one entry, or none
        assert part.item() == pytest.approx(full.item(), abs=1e-6)


@torch.no_grad()
def test_top_k_of_a_reference(parent, rows):
    torch.manual_seed(0)
    theirs, ours = torch.randn(2, *rows.ids_NT.shape, 32)
    every = Reference(parent.model, theirs, rows).compare(ours[None])
    bounds = [
        Reference(parent.model, theirs, rows, top_k=k).compare(ours[None])["kl"].item()
        for k in (1, 4, 16, 61)
    ]
    assert bounds == sorted(bounds) and 0 < bounds[0] < bounds[-1]
    assert bounds[-1] == pytest.approx(every["kl"].item(), rel=1e-6)


@pytest.mark.slow
@torch.inference_mode()
def test_fused_programs_compute_the_same(parent, rows):
    from adaptive.llm_puzzle.walk import Positions, fused_run

    torch.manual_seed(0)
    theirs, ours = torch.randn(2, *rows.ids_NT.shape, 32)
    compiled = Reference(parent.model, theirs, rows, compiled=True).compare(ours[None])
    for name, value in Reference(parent.model, theirs, rows).compare(ours[None]).items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-5, atol=1e-5)
    for shape in ((4, 9), (3, 9), (2, 12)):
        x_BTH = torch.randn(*shape, 32)
        positions = Positions.of(parent.model, x_BTH)
        for layer in parent.model.model.layers:
            wanted = positions.run(layer, x_BTH)
            torch.testing.assert_close(fused_run()(positions, layer, x_BTH), wanted)
