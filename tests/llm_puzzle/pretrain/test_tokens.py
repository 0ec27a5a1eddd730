"""Tokenizer, streams, training windows."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_parent import SHAPE

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.pretrain import tokens
from adaptive.llm_puzzle.pretrain.settings import ParentShape
from adaptive.llm_puzzle.pretrain.tokenizer import BOS_ID, EOS_ID


def test_tokenizer_loads_in_transformers_and_is_lossless(prepared):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (BOS_ID, EOS_ID)
    assert len(tokenizer) == SHAPE.vocab
    for text in ("Once upon a time", "  tabs\t and\n\nlines ", "naïve 漢字 🙂", "<|endoftext|>"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == BOS_ID and EOS_ID not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_token_bytes_add_up_to_the_text(prepared):
    about = json.loads((prepared / "tokens.json").read_text())
    data = tokens.TokenData(prepared)
    for name, stream in data.valid.items():
        assert data.token_bytes[stream].sum() == about["bytes"][f"valid.{name}"]
        assert (
            (stream == BOS_ID).sum()
            == (stream == EOS_ID).sum()
            == about["documents"][f"valid.{name}"]
        )


def test_batches_are_a_function_of_seed_and_step(prepared):
    first, second = tokens.TokenData(prepared), tokens.TokenData(prepared)
    draw = lambda data, step, seed: data.batch(step, 16, SHAPE.context, seed)  # noqa: E731
    assert torch.equal(draw(first, 7, 0), draw(second, 7, 0))
    assert not torch.equal(draw(first, 7, 0), draw(first, 8, 0))
    assert not torch.equal(draw(first, 7, 0), draw(first, 7, 1))
    batch = draw(first, 7, 0)
    assert batch.shape == (16, SHAPE.context + 1) and batch.dtype == torch.int64
    # Even rows open a document unless the stream's end pushed the window back.
    assert (batch[::2, 0] == BOS_ID).float().mean() > 0.8


def test_sources_are_drawn_by_tokens_times_repeat(prepared):
    data = tokens.TokenData(prepared)
    about = json.loads((prepared / "tokens.json").read_text())
    books, stories = (about["tokens"][f"train.{name}"] for name in ("books", "stories"))
    windows = torch.cat([data.batch(step, 64, 1, 0) for step in range(100)])[1::2]
    sea = data.tokens_N[:books].unique()
    only_stories = data.tokens_N[books:].unique()
    only_stories = only_stories[~torch.isin(only_stories, sea)]
    # How often a token that only stories have is drawn, against how often it occurs there.
    occurs = torch.isin(data.tokens_N[books:], only_stories).float().mean()
    share = torch.isin(windows[:, 0], only_stories).float().mean() / occurs
    assert share == pytest.approx(3 * stories / (books + 3 * stories), abs=0.04)


def test_too_little_text_for_the_vocabulary(tmp_path, sources):
    shape = ParentShape(**{**vars(SHAPE), "vocab": 60_000})
    with pytest.raises(UserError, match="fewer than shape.vocab=60000"):
        tokens.prepare_tokens(*sources, shape, tmp_path)
    assert not list(tmp_path.iterdir())
