"""Long rows are the text itself, uncut, from their own side of the split."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from adaptive.core import UserError
from adaptive.llm_puzzle.contexts import long_rows
from adaptive.llm_puzzle.data import read_rows
from adaptive.llm_puzzle.settings import DataConfig

# 3000 letters in which every place is known: no piece of 12 comes twice.
PAIRS = ["".join(p) for p in itertools.product("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJ", "xyz ")]
TEXT = "".join(PAIRS)[:3000].replace("\n", " ").strip()


@pytest.fixture
def source(tmp_path):
    def write(content: str) -> str:
        (tmp_path / "text.txt").write_text(content)
        return str(tmp_path / "text.txt")

    return write


def spelled(tokenizer, rows) -> list[str]:
    return [
        "".join(tokenizer.convert_ids_to_tokens(row[:n])).replace("<s>", "|")
        for row, n in zip(rows.ids_NT.tolist(), rows.lengths_N.tolist(), strict=True)
    ]


def read(source, tokenizer, length, tokens, part=slice(None), **config):
    data = DataConfig(length=11, **config)
    return long_rows(source, data, tokenizer, "data.calibration", length, tokens, part)


@pytest.mark.parametrize("part", [slice(None), slice(20), slice(20, None), slice(7, 30)], ids=str)
def test_an_undivided_text_is_cut_anew_within_its_part(source, tokenizer, part):
    path = source(TEXT)
    found = read(path, tokenizer, 41, 80, part)
    assert not found.joined and found.rows.lengths_N.tolist() == [41, 41]
    start = 10 * (part.start or 0)  # eleven tokens a row, one of them BOS
    assert spelled(tokenizer, found.rows) == [
        "|" + TEXT[start : start + 40],
        "|" + TEXT[start + 40 : start + 80],
    ]


def test_training_and_validation_share_no_text(source, tokenizer):
    path, data = source(TEXT), DataConfig(length=11)
    held = read_rows(path, data, 330, tokenizer, "x").first(330)
    judged = read(path, tokenizer, 44, 10**6, slice(len(held)))
    trained = read(path, tokenizer, 44, 10**6, slice(len(held), None))
    judged_text, trained_text = (
        "".join(spelled(tokenizer, found.rows)).replace("|", "") for found in (judged, trained)
    )
    cut = 10 * len(held)
    assert judged_text in TEXT[:cut] and trained_text in TEXT[cut:]
    assert len(judged_text) > cut - 44 and len(trained_text) > len(TEXT) - cut - 44


def test_long_documents_come_first(source, tokenizer):
    path = source("--".join(["a" * 50, "b" * 7, "c" * 39, "d" * 40, "e" * 60]))
    found = read(path, tokenizer, 41, 80, document_start="--")
    assert not found.joined
    assert spelled(tokenizer, found.rows) == ["|" + "a" * 40, "|" + "d" * 40]
    # Documents two to four alone: too few long ones, so they are joined.
    part = read(path, tokenizer, 41, 82, slice(1, 4), document_start="--")
    assert part.joined
    assert spelled(tokenizer, part.rows) == [
        "|" + "b" * 7 + "|" + "c" * 32,
        "c" * 7 + "|" + "d" * 33,
    ]


def test_a_text_shorter_than_a_row_is_one_row(source, tokenizer):
    found = read(source("short text"), tokenizer, 41, 80)
    assert spelled(tokenizer, found.rows) == ["|short text"]


def test_a_part_without_text_is_a_mistake(source, tokenizer):
    with pytest.raises(UserError, match=r"data\.calibration=.* holds no text for rows of 41"):
        read(source("short text"), tokenizer, 41, 80, slice(5, None))


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("length", [5, 6, 11])
def test_rows_are_counted_as_calibration_counts_them(source, tokenizer, length, bos):
    """Texts with a last row of any length, with BOS and without."""
    tokenizer = copy.deepcopy(tokenizer)
    if not bos:
        tokenizer.bos_token = None
    data = DataConfig(length=length)
    for letters in range(2, 24):
        path = source("abcdefghijklmnopqrstuvwxyz"[:letters])
        rows = read_rows(path, data, 10**6, tokenizer, "x")
        for row in range(len(rows)):
            part = slice(row, row + 1)
            one = long_rows(path, data, tokenizer, "x", length, 10**6, part).rows
            assert torch.equal(one.ids_NT[0], rows.ids_NT[row, : rows.lengths_N[row]])
        with pytest.raises(UserError):
            long_rows(path, data, tokenizer, "x", length, 10**6, slice(len(rows), None))
