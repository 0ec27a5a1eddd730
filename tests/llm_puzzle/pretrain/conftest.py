"""A tiny corpus and its tokens."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import torch
from tiny_parent import SHAPE

from adaptive.llm_puzzle.pretrain.settings import Source
from adaptive.llm_puzzle.pretrain.tokens import prepare_tokens


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are slower on many threads, and far slower on busy ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def story(n: int) -> str:
    animal, place = ("cat", "dog", "hen")[n % 3], ("park", "wood", "barn", "town")[n % 4]
    return f"Once upon a time, a {animal} went to the {place}.\nIt saw {n} red balls — “oh”!"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    stories = [story(n) for n in range(120)]
    (folder / "train.txt").write_text("\n<|endoftext|>\n".join(stories[:100]), encoding="utf-8")
    (folder / "valid.txt").write_text("\n\n".join(stories[100:]), encoding="utf-8")
    books = folder / "books"
    books.mkdir()
    with lzma.open(books / "b.txt.xz", "wt", encoding="utf-8") as file:
        file.write("\n\n".join(f"Paragraph {n} speaks of the sea." for n in range(100)))
    (books / "a.txt").write_text("The first book is short.", encoding="utf-8")
    (books / "notes.md").write_text("not read", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def sources(texts) -> tuple[dict[str, Source], dict[str, Source]]:
    training = {
        "books": Source(str(texts / "books")),
        "stories": Source(str(texts / "train.txt"), "<|endoftext|>", 3.0),
    }
    return training, {"stories": Source(str(texts / "valid.txt"), "stories")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, sources) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    prepare_tokens(*sources, SHAPE, folder)
    return folder
