"""Building, evaluating and exporting a parent."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_parent import SHAPE

from adaptive.llm_puzzle.pretrain import model, tokens
from adaptive.llm_puzzle.pretrain.settings import ParentShape


def test_default_shape_is_llama_tiny():
    parent = model.build_parent(ParentShape(), seed=0)
    # 2048*192 + 8 * (192*256*2 + 192*128*2 + 3*192*512 + 2*192) + 192
    assert sum(p.numel() for p in parent.parameters()) == 3_935_424


def test_build_is_seeded_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    one, same, other = (model.build_parent(SHAPE, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    key = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one[key], same[key]) and not torch.equal(one[key], other[key])


def test_training_attention_equals_what_transformers_loads(tmp_path, prepared):
    parent = model.build_parent(SHAPE, 0)
    model.save_parent(parent, prepared, tmp_path, "float32")
    assert next(parent.parameters()).dtype == torch.float32
    ids = torch.randint(0, SHAPE.vocab, (3, SHAPE.context))
    loaded = model.load_parent(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    torch.testing.assert_close(loaded(ids).logits, parent(ids).logits, rtol=0, atol=1e-5)


def test_evaluate_scores_each_text_token_once(prepared, monkeypatch):
    monkeypatch.setattr(model, "EVALUATION_BATCH", 3)
    documents = tokens.TokenData(prepared).validation(SHAPE.context)["stories"]
    parent = model.build_parent(SHAPE, 0)
    found = model.evaluate(parent, documents)
    nats, scored, size = 0.0, 0, 0
    sizes = tokens.TokenData(prepared).token_bytes
    for ids, kept in zip(documents.ids_DT, documents.scored_DT, strict=True):
        length = int(kept.sum()) + 1  # BOS is read, not scored
        logits = parent(ids[None, :length]).logits[0, :-1]
        nats += torch.nn.functional.cross_entropy(logits, ids[1:length], reduction="sum").item()
        scored, size = scored + length - 1, size + int(sizes[ids[1:length]].sum())
    assert found["tokens"] == scored
    assert found["loss"] == pytest.approx(nats / scored, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert model.evaluate(parent, documents, limit=2)["tokens"] == documents.scored_DT[:2].sum()


def test_dropout_acts_in_training_alone_and_leaves_no_trace_on_disk(tmp_path, prepared):
    parent = model.build_parent(SHAPE, 0)
    model.add_dropout(parent, 0.5)
    ids = torch.randint(0, SHAPE.vocab, (2, 9))
    clean = model.build_parent(SHAPE, 0).eval()(ids).logits
    assert torch.equal(parent.eval()(ids).logits, clean)
    assert not torch.allclose(parent.train()(ids).logits, clean)
    model.save_parent(parent, prepared, tmp_path, "float32")
    torch.testing.assert_close(model.load_parent(tmp_path)(ids).logits, clean, rtol=0, atol=1e-5)
