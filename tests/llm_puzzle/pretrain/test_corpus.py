"""Text files and documents."""

from __future__ import annotations

import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.pretrain import corpus


def test_read_text_of_a_directory_is_its_files_by_name(texts):
    text = corpus.read_text(texts / "books")
    assert text.startswith("The first book is short.\n\nParagraph 0 speaks")
    assert "not read" not in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b" \n", "is empty"),
        ("latin1.txt", "café".encode("latin-1"), r"not UTF-8 \(byte 3\)"),
        ("torn.txt.xz", lzma.compress(b"word " * 999)[:-20], "no intact .xz archive"),
        ("absent.txt", None, "cannot be read: No such file"),
        ("folder", "directory", "holds no .txt"),
    ],
)
def test_unreadable_text_is_told_in_a_sentence(tmp_path, name, content, message):
    if content == "directory":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        corpus.read_text(tmp_path / name)


@given(st.text(alphabet="ab .\n", max_size=300), st.integers(5, 60))
def test_passages_keep_every_word_in_order_and_their_size(text, limit):
    passages = corpus.split_documents(text, "passages", limit)
    assert all(0 < len(passage) <= limit and passage.strip() for passage in passages)
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_passages_break_at_sentences_then_blanks():
    pieces = corpus.split_documents("One two. Three four five six", "passages", 14)
    assert pieces == ["One two.", "Three four", "five six"]


def test_stories_begin_where_the_story_formula_follows_a_blank_line():
    text = "Tail.\n\nStill the tail. One day, no.\n\nOnce upon a time, a.\n\nb\n\nOne day, c."
    parts = corpus.split_documents(text, "stories")
    assert parts == [
        "Tail.\n\nStill the tail. One day, no.",
        "Once upon a time, a.\n\nb",
        "One day, c.",
    ]
