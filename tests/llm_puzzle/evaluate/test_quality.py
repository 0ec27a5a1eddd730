"""Evaluation is a plain sum over tokens, in any batches, whatever the position."""

from __future__ import annotations

import math

import pytest
import torch

from adaptive.llm_puzzle import head
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import by_position, evaluate
from adaptive.llm_puzzle.evaluate.quality import CHOICES, perplexity


def plain(student, parent, rows) -> list[dict[str, float]]:
    """One record a predicted token, row by row, without padding."""
    records = []
    for ids, n in zip(rows.ids_NT, rows.lengths_N.tolist(), strict=True):
        with torch.no_grad():
            logq, logp = (
                model(ids[None, :n]).logits[0, :-1].log_softmax(-1)
                for model in (student, parent.model)
            )
        for i in range(n - 1):
            best = logp[i].topk(max(CHOICES)).indices.tolist()
            choice = int(logq[i].argmax())
            records.append(
                {
                    "position": i + 1,
                    "loss": -logq[i, ids[i + 1]].item(),
                    "parent_loss": -logp[i, ids[i + 1]].item(),
                    "kl": (logp[i].exp() * (logp[i] - logq[i])).sum().item(),
                    **{f"top{k}": float(choice in best[:k]) for k in CHOICES},
                }
            )
    return records


def mean(records, key) -> float:
    return sum(record[key] for record in records) / len(records)


def test_evaluation_equals_plain_sums(student, parent, rows):
    found, records = evaluate(student, rows, 40, parent.model), plain(student, parent, rows)
    assert found.tokens == len(records)
    for key in ("loss", "kl", "top1", "top5", "top10"):
        assert getattr(found, key) == pytest.approx(mean(records, key), rel=1e-4), key
    assert 0 < found.top1 < found.top5 < found.top10 < 1
    assert found.ppl == pytest.approx(math.exp(mean(records, "loss")), rel=1e-4)


def test_positions_equal_plain_sums(student, parent, rows):
    long = Rows.pack([row + row[1:] * 3 for row in rows.ids_NT.tolist()])
    buckets = by_position(student, long, 100, parent.model)
    records = plain(student, parent, long)
    assert [bucket.label for bucket in buckets] == ["1-15", "16-31", "32-63", "64-127"]
    for bucket in buckets:
        here = [r for r in records if bucket.start <= r["position"] < bucket.stop]
        assert bucket.tokens == len(here) > 0
        for key in ("loss", "parent_loss", "kl"):
            assert getattr(bucket, key) == pytest.approx(mean(here, key), rel=1e-4)
        assert bucket.ppl == pytest.approx(math.exp(bucket.loss))
    assert sum(bucket.tokens for bucket in buckets) == len(records)


def test_the_parent_evaluates_to_itself(parent, rows):
    alone, compared = (evaluate(parent.model, rows, 200, p) for p in (None, parent.model))
    assert alone.loss == compared.loss and abs(compared.kl) < 1e-6
    assert alone.kl == 0 and alone.top1 == compared.top1 == compared.top10 == 1
    for bucket in by_position(parent.model, rows, 200):
        assert bucket.loss == bucket.parent_loss and bucket.kl == 0


def test_neither_batches_nor_chunks_matter(student, parent, rows, monkeypatch):
    one, many = (evaluate(student, rows, size, parent.model) for size in (1, 10_000))
    assert one.loss == pytest.approx(many.loss, rel=1e-5) and one.kl == pytest.approx(many.kl)
    reverse = rows.select(torch.arange(len(rows)).flip(0))
    assert evaluate(student, reverse, 100).loss == pytest.approx(one.loss, rel=1e-5)
    monkeypatch.setattr(head, "CHUNK_LOGITS", 3 * student.config.vocab_size)
    chunked = evaluate(student, rows, 10_000, parent.model)
    assert chunked.kl == pytest.approx(many.kl) and chunked.top5 == many.top5


def test_a_perplexity_beyond_floats_is_infinite():
    assert perplexity(0.0) == 1 and perplexity(1e6) == math.inf
