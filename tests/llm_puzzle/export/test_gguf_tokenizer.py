"""Tokenizers in GGUF: the same tokens and merges, and the same ids by llama.cpp's own methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_puzzle import character_tokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.export.gguf_tokenizer import (
    PRE_TOKENIZERS,
    Vocabulary,
    read_vocabulary,
    vocabulary,
)

STORY = "Once upon a time, there was a little girl named Lily. She didn't like the 23 big dogs!"


def sentencepiece(words: Vocabulary, text: str) -> list[int]:
    """As SentencePiece does it: of all neighbours that make a piece, those of the best score."""
    ids = {token: i for i, token in enumerate(words.tokens)}
    pieces = list(("▁" if words.add_space else "") + text.replace(" ", "▁"))
    while True:
        found = [
            (words.scores[ids[left + right]], -n)
            for n, (left, right) in enumerate(zip(pieces, pieces[1:], strict=False))
            if left + right in ids
        ]
        if not found:
            break
        n = -max(found)[1]
        pieces[n : n + 2] = [pieces[n] + pieces[n + 1]]
    numbers: list[int] = []
    for piece in pieces:
        whole = piece in ids
        numbers += [ids[piece]] if whole else [ids[f"<0x{b:02X}>"] for b in piece.encode()]
    return numbers


def byte_pairs(words: Vocabulary, text: str) -> list[int]:
    """As llama.cpp does it: words by the rule called gpt-2, then merges in their order."""
    ids = {token: i for i, token in enumerate(words.tokens)}
    model = models.BPE(vocab=ids, merges=[tuple(pair.split(" ")) for pair in words.merges])
    assert words.pre == "gpt-2"
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = tokenizer.encode(text).ids
    return ([words.special["bos"]] if words.add_bos else []) + found


@pytest.mark.data
@pytest.mark.parametrize(("name", "size"), [("stories260K", 512), ("babyllama_tok105", 105)])
def test_a_sentencepiece_vocabulary_gives_the_same_ids(name, size, data_dir):
    directory = data_dir / "lm" / name
    words = read_vocabulary(directory, size)
    assert words is not None and words.model == "llama" and words.add_space
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert words.tokens == tokenizer.convert_ids_to_tokens(list(range(size)))
    assert words.special == {"bos": 1, "eos": 2, "unk": 0}
    assert words.types[:3] == [2, 3, 3]  # unknown, control, control
    assert words.types.count(6) == (256 if size == 512 else 0)  # bytes
    lines = (data_dir / "text/tinystories/valid_794KB.txt").read_text(encoding="utf-8").splitlines()
    for text in [STORY, *[line for line in lines if line][:40]]:
        if size == 105 and set(text) - set("".join(words.tokens)) - {" "}:
            continue  # it has no bytes to fall back on
        assert sentencepiece(words, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_byte_level_vocabulary_gives_the_same_ids():
    directory = zoo.path("llama-tiny")
    words = read_vocabulary(directory, 2048)
    assert words is not None and (words.model, words.pre) == ("gpt2", "gpt-2")
    file = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert words.merges == [" ".join(pair) for pair in file["merges"]]
    assert words.tokens == sorted(file["vocab"], key=file["vocab"].__getitem__)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in (STORY, "naïve café\n\n  two  spaces", "<"):
        assert byte_pairs(words, text) == tokenizer(text)["input_ids"]


def byte_level(*steps: pre_tokenizers.PreTokenizer, **special: str) -> PreTrainedTokenizerFast:
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
# The patterns of Llama 3's and Qwen 2's tokenizer.json.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt-2": lambda: byte_level(WORDS),
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True), WORDS),
    "llama-bpe": lambda: byte_level(split(LLAMA3), BYTES),
    "qwen2": lambda: byte_level(split(LLAMA3.replace("{1,3}", "")), BYTES),
}


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS.values()))
def test_the_rule_that_cuts_words_is_recognised(name):
    assert vocabulary(KNOWN[name](), 256).pre == name


def test_special_and_missing_tokens_have_their_types():
    tokenizer = byte_level(WORDS, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens(["hello"])
    tokenizer.chat_template = "{{ messages }}"
    words = vocabulary(tokenizer, 262)
    assert words.tokens[256:] == ["<s>", "</s>", "hello", "[PAD259]", "[PAD260]", "[PAD261]"]
    assert words.types[256:] == [3, 3, 4, 5, 5, 5]
    assert words.special == {"bos": 256, "eos": 257} and words.template == "{{ messages }}"
    assert not words.add_bos and not words.add_eos


UNKNOWN: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], str]] = {
    "model": (character_tokenizer, "model WordLevel"),
    "pattern": (lambda: byte_level(split(r"\w+"), BYTES), r"pre-tokenizer \w+ + bytes"),
    "prefix": (
        lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "pre-tokenizer ByteLevel",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(case):
    make, words = UNKNOWN[case]
    with pytest.raises(UserError) as caught:
        vocabulary(make(), 300)
    assert words in str(caught.value) and "leave gguf out of `export`" in str(caught.value)


def test_more_tokens_than_the_model_knows_are_refused():
    with pytest.raises(UserError, match="256 tokens, but the model's vocabulary has 255"):
        vocabulary(byte_level(WORDS), 255)


def test_no_tokenizer_is_none(tmp_path: Path):
    assert read_vocabulary(tmp_path, 10) is None
