"""Rows of tokens: from text, from the parent, and in batches."""

from __future__ import annotations

import lzma
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.data import Rows, documents, read_rows, sample_rows, steps_for
from adaptive.llm_puzzle.settings import DataConfig

BOS, EOS = 1, 2
STORIES = r"<\|endoftext\|>|\n\s*\n(?=Once upon a time|One day)"


@pytest.fixture
def text(tmp_path):
    """Writes a text file and returns its name."""

    def write(content: str | bytes, name: str = "text.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def read(source: str, tokenizer, tokens: int = 10**6, **settings) -> Rows:
    return read_rows(source, DataConfig(**settings), tokens, tokenizer, "data.calibration")


def words(rows: Rows, tokenizer) -> list[str]:
    """The text of each row; every row begins with BOS."""
    assert (rows.ids_NT[:, 0] == BOS).all()
    return [
        "".join(tokenizer.convert_ids_to_tokens(row[1:n].tolist()))
        for row, n in zip(rows.ids_NT, rows.lengths_N, strict=True)
    ]


# --- documents ---


def test_stories_begin_where_they_begin(text):
    source = text(
        "Once upon a time, a cat.\n\nIt ate.\n\n  \nOne day, a dog.\n\nOnce more.\n"
        "<|endoftext|>\nA hen.\n<|endoftext|>\n \n"
    )
    found = list(documents(source, DataConfig(document_start=STORIES), "data.calibration"))
    assert found == [
        "Once upon a time, a cat.\n\nIt ate.",
        "One day, a dog.\n\nOnce more.",
        "A hen.",
    ]


def test_a_directory_is_read_in_order_of_names(text, tmp_path):
    text("Second.", "b.txt")
    text(lzma.compress(b"First."), "a.txt.xz")
    text("Not text.", "c.json")
    config = DataConfig(document_start=r"\n\n")
    assert list(documents(str(tmp_path), config, "data.calibration")) == ["First.", "Second."]


def test_a_bad_expression_is_named(text):
    with pytest.raises(UserError, match=r"data\.document_start is not a regular expression"):
        list(documents(text("a"), DataConfig(document_start="("), "data.calibration"))


# --- rows from text ---


def test_documents_are_cut_off(text, tokenizer):
    source = text("abcdefgh\n--\nab\n--\nabcde")
    rows = read(source, tokenizer, document_start="--", length=6)
    assert words(rows, tokenizer) == ["abcde", "ab", "abcde"]
    assert rows.lengths_N.tolist() == [6, 3, 6]
    assert rows.ids_NT[1, 3:].tolist() == [0, 0, 0]


def test_an_undivided_file_is_cut_up(text, tokenizer):
    rows = read(text("abcdefghijk"), tokenizer, length=5)
    assert words(rows, tokenizer) == ["abcd", "efgh", "ijk"]


def test_no_more_is_read_than_asked(text, tokenizer):
    source = text("abcd" * 100)
    assert read(source, tokenizer, tokens=11, length=5).tokens == 15
    assert read(source, tokenizer, tokens=15, length=5).tokens == 15
    assert read(source, tokenizer, tokens=16, length=5).tokens == 20


def test_a_tokenizer_without_bos_starts_with_text(text, tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    rows = read(text("abcdefg"), bare, length=5)
    assert rows.lengths_N.tolist() == [5, 2]
    assert tokenizer.convert_ids_to_tokens(rows.ids_NT[0].tolist()) == list("abcde")


MISTAKES = {
    "empty": ("", r"text file .*text\.txt is empty"),
    "blank": (" \n\n ", r"text file .*text\.txt is empty"),
    "not UTF-8": ("naïve".encode("latin-1"), r"text file .*text\.txt is not UTF-8 \(byte 2\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_bad_text_is_one_sentence(mistake, text, tokenizer):
    content, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        read(text(content), tokenizer)


def test_a_text_that_only_holds_separators(text, tokenizer):
    with pytest.raises(UserError, match=r"data\.calibration=.* holds no text"):
        read(text("--\n--"), tokenizer, document_start="--")


def test_a_file_that_is_not_there(tmp_path, tokenizer):
    with pytest.raises(UserError, match="is neither a file nor a directory"):
        read(str(tmp_path / "nowhere.txt"), tokenizer)


def test_an_empty_directory(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"holds no \.txt or \.txt\.xz file"):
        read(str(tmp_path), tokenizer)


def test_a_damaged_archive(text, tokenizer):
    source = text(lzma.compress(b"abc" * 1000)[:-20], "a.txt.xz")
    with pytest.raises(UserError, match="is no intact .xz archive"):
        read(source, tokenizer)


def test_a_data_set_without_datasets(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs `pip install datasets`"):
        read("roneneldan/TinyStories", tokenizer)


def test_a_parent_without_a_tokenizer(text):
    with pytest.raises(UserError, match="the parent has no tokenizer.json to read text with"):
        read(text("abc"), None)


# --- rows from the parent ---


def test_sampled_rows_start_at_bos_and_end_at_eos_or_the_limit(parent):
    torch.manual_seed(3)
    batches = list(sample_rows(parent.model, 24, 1500, batch=32))
    rows = Rows.concatenate(batches)
    assert rows.tokens >= 1500 and sum(b.tokens for b in batches[:-1]) < 1500
    assert (rows.ids_NT[:, 0] == BOS).all()
    ended = 0
    for ids, n in zip(rows.ids_NT.tolist(), rows.lengths_N.tolist(), strict=True):
        assert EOS not in ids[1 : n - 1]
        assert n == 24 or ids[n - 1] == EOS
        assert not any(ids[n:])
        ended += ids[n - 1] == EOS
    assert 0 < ended < len(rows)  # both kinds were seen


def test_sampling_follows_the_seed(parent):
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Rows.concatenate(list(sample_rows(parent.model, 12, 100, 8))).ids_NT

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_sampling_draws_from_the_models_own_distribution(parent):
    """First tokens after BOS, against the softmax that the model gives them."""
    torch.manual_seed(0)
    [rows] = sample_rows(parent.model, 2, 1, batch=20_000)
    found = torch.bincount(rows.ids_NT[:, 1], minlength=parent.model.config.vocab_size) / 20_000
    with torch.no_grad():
        wanted = parent.model(torch.tensor([[BOS]])).logits[0, 0].softmax(-1)
    assert (found - wanted).abs().sum() < 0.08  # about 0.04 by chance


def test_a_parent_without_bos_cannot_sample(make_child):
    model = make_child("nothing", bos_token_id=None)
    with pytest.raises(UserError, match="data.calibration=self needs a parent with a bos_token_id"):
        next(sample_rows(model, 8, 100, 4))


# --- rows in general ---

lists = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), min_size=1, max_size=12)


@given(lists, st.integers(1, 40))
def test_batches_hold_every_row_once_within_their_budget(lists, budget):
    rows = Rows.pack(lists)
    found = [
        row[:n]
        for batch in rows.token_batches(budget)
        for row, n in zip(batch.ids_NT.tolist(), batch.lengths_N.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(lists)
    for batch in rows.token_batches(budget):
        assert batch.ids_NT.shape[1] == batch.lengths_N.max()
        assert batch.ids_NT.numel() <= budget or len(batch) == 1


@given(lists)
def test_masks_cover_real_tokens_and_those_with_a_successor(lists):
    rows = Rows.pack(lists)
    assert rows.mask_NT.sum(1).tolist() == [len(row) for row in lists]
    assert rows.predicted_NT.sum(1).tolist() == [len(row) - 1 for row in lists]
    assert rows.ids_NT[rows.mask_NT].tolist() == [token for row in lists for token in row]
    assert rows.tokens == sum(map(len, lists))


@given(lists, st.integers(1, 60))
def test_first_takes_no_more_rows_than_needed(lists, tokens):
    rows = Rows.pack(lists)
    first = rows.first(tokens)
    assert first.tokens >= min(tokens, rows.tokens)
    assert len(first) == 1 or int(first.lengths_N[:-1].sum()) < tokens


@given(st.integers(1, 20), st.integers(1, 25), st.integers(1, 30), st.integers(0, 5))
def test_training_visits_all_rows_equally_and_follows_the_seed(count, size, steps, seed):
    rows = Rows.pack([[1]] * count)
    visits = list(rows.training_indices(size, steps, seed))
    again = list(rows.training_indices(size, steps, seed))
    assert len(visits) == steps
    assert all(torch.equal(a, b) for a, b in zip(visits, again, strict=True))
    assert {len(batch) for batch in visits} == {min(size, count)}
    seen = torch.bincount(torch.cat(visits), minlength=count)
    assert seen.max() - seen.min() <= 1


def test_training_order_depends_on_the_seed():
    rows = Rows.pack([[1]] * 50)
    first, second = (torch.cat(list(rows.training_indices(5, 10, seed))) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_rows_survive_the_disk(rows, tmp_path):
    rows.save(tmp_path / "rows.safetensors")
    again = Rows.load(tmp_path / "rows.safetensors")
    assert torch.equal(again.ids_NT, rows.ids_NT) and again.ids_NT.dtype == torch.int64
    assert torch.equal(again.lengths_N, rows.lengths_N)


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (40, 1), (400, 10), (10**4, 250)])
def test_steps_see_about_as_many_tokens_as_asked(tokens, steps):
    rows = Rows.pack([[1] * 10] * 16)
    assert steps_for(tokens, rows, 4) == steps


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets`: data sets of two stories a split."""
    asked = []

    def load_dataset(repository, subset, *, split, streaming):
        asked.append((repository, subset, split, streaming))
        return [{"id": i, "story": f"{split} {i}"} for i in range(2)]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("stories", ("stories", None, "train")),
        ("me/stories:old", ("me/stories", "old", "train")),
        ("stories:old:test", ("stories", "old", "test")),
        ("stories::validation", ("stories", None, "validation")),
    ],
)
def test_a_data_set_has_subsets_splits_and_columns(hub, source, parts):
    config = DataConfig(calibration=source, column="story")
    assert list(documents(source, config, "data.calibration")) == [f"{parts[2]} {i}" for i in "01"]
    assert hub == [(*parts, True)]


def test_mistakes_about_a_data_set(hub):
    with pytest.raises(UserError, match="data.column=text is not in stories, .* id, story"):
        list(documents("stories", DataConfig(), "data.calibration"))
    with pytest.raises(UserError, match="data.calibration=a:b:c:d has too many parts"):
        list(documents("a:b:c:d", DataConfig(), "data.calibration"))
