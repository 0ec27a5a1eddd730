"""A Hugging Face tokenizer in GGUF's terms.

llama.cpp has its own tokenizers: byte-level BPE (``gpt2``), which needs the name of the rule that
cuts text into words first, and SentencePiece's BPE (``llama``), which needs scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.parent import load_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, as GGUF numbers them."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PRE_TOKENIZERS: dict[tuple[str, ...], str] = {
    ("bytes and words",): "gpt-2",
    ("digits", "bytes and words"): "smollm",
    (_CONTRACTIONS + r"\p{N}{1,3}" + _REST, "bytes"): "llama-bpe",
    (_CONTRACTIONS + r"\p{N}" + _REST, "bytes"): "qwen2",
}
"""What a byte-level tokenizer does before merging to llama.cpp's name for it."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """What the header of a GGUF file says of a tokenizer.

    Attributes:
        model: ``gpt2`` or ``llama``.
        pre: llama.cpp's name of the rule that cuts text into words.
        tokens: text of each, by id.
        types: of each, as GGUF numbers them.
        scores: of each, for ``llama``; pieces of higher score merge first.
        merges: pairs as ``"left right"``, for ``gpt2``; earlier ones first.
        special: ``bos``, ``eos``, ``unk`` and ``pad`` to ids, those that there are.
        add_bos, add_eos: put at the ends of a text.
        add_space: a text gets a leading space.
        template: of chats, or ``None``.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    add_space: bool = False
    template: str | None = None


def read_vocabulary(directory: Path, size: int) -> Vocabulary | None:
    """The tokenizer of a model directory; ``None`` where it has none.

    Args:
        directory: of the model.
        size: of the embedding; ids beyond the tokenizer's become unused tokens.

    Raises:
        UserError: llama.cpp has no tokenizer of its kind, or it has more tokens than the model.
    """
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        return None
    if not tokenizer.is_fast:
        raise _unknown("one without tokenizer.json")
    return vocabulary(tokenizer, size)


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary:
    """See :func:`read_vocabulary`."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise _unknown(f"model {model['type']}")
    known = {i: token for token, i in model["vocab"].items()}
    added = {token["id"]: token for token in content["added_tokens"]}
    if max(*known, *added) >= size:
        raise UserError(
            f"gguf: the tokenizer has {max(*known, *added) + 1} tokens, but the model's vocabulary "
            f"has {size}; take the tokenizer that belongs to the parent"
        )
    unknown = tokenizer.unk_token_id
    tokens, types = [], []
    for i in range(size):
        if i in added:
            tokens.append(added[i]["content"])
            special = CONTROL if added[i]["special"] else USER_DEFINED
            types.append(UNKNOWN if i == unknown and i in known else special)
        else:
            tokens.append(known.get(i, f"[PAD{i}]"))
            types.append(NORMAL if i in known else UNUSED)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    ends = tokenizer("a")["input_ids"]
    common: dict[str, Any] = {
        "tokens": tokens,
        "special": {
            name: number
            for name in ("bos", "eos", "unk", "pad")
            if (number := getattr(tokenizer, f"{name}_token_id")) is not None
        },
        "add_bos": ends[:1] == [tokenizer.bos_token_id],
        "add_eos": ends[-1:] == [tokenizer.eos_token_id],
        "template": tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    }
    if model.get("byte_fallback"):
        types = [
            BYTE if kind == NORMAL and _BYTE.fullmatch(token) else kind
            for token, kind in zip(tokens, types, strict=True)
        ]
        return Vocabulary(
            model="llama",
            pre="default",
            types=types,
            scores=_scores(tokens, types, merges),
            add_space=_leading_space(content),
            **common,
        )
    return Vocabulary(
        model="gpt2",
        pre=_pre_tokenizer(content),
        types=types,
        merges=[" ".join(pair) for pair in merges],
        **common,
    )


def _scores(tokens: list[str], types: list[int], merges: list[tuple[str, ...]]) -> list[float]:
    """Scores under which SentencePiece merges in the order of the merges.

    The piece of merge number n scores -n, and single characters, which come before all merging,
    less than all of those, as SentencePiece itself numbers them.
    """
    rank: dict[str, int] = {}
    for n, pair in enumerate(merges):
        rank.setdefault("".join(pair), n)
    scores, below = [], len(merges)
    for token, kind in zip(tokens, types, strict=True):
        if kind != NORMAL:
            scores.append(0.0)
        elif token in rank:
            scores.append(-float(rank[token]))
        else:
            scores.append(-float(below))
            below += 1
    return scores


def _leading_space(content: dict[str, Any]) -> bool:
    steps = [*_steps(content.get("normalizer")), *_steps(content.get("pre_tokenizer"))]
    return any(
        step["type"] == "Prepend"
        or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _pre_tokenizer(content: dict[str, Any]) -> str:
    found = tuple(_named(step) for step in _steps(content.get("pre_tokenizer")))
    if found not in PRE_TOKENIZERS:
        raise _unknown(f"pre-tokenizer {' + '.join(found) or 'none'}")
    return PRE_TOKENIZERS[found]


def _named(step: dict[str, Any]) -> str:
    if step["type"] == "ByteLevel" and not step.get("add_prefix_space"):
        return "bytes and words" if step.get("use_regex", True) else "bytes"
    if step["type"] == "Digits" and step.get("individual_digits"):
        return "digits"
    if step["type"] == "Split" and step.get("behavior") == "Isolated":
        return str(step["pattern"].get("Regex"))
    return step["type"]


def _steps(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, which may be a sequence of them."""
    if part is not None and part["type"] == "Sequence":
        yield from part.get("pretokenizers") or part.get("normalizers") or ()
    elif part is not None:
        yield part


def _unknown(what: str) -> UserError:
    return UserError(
        f"gguf: llama.cpp has no tokenizer of this kind ({what}); leave gguf out of `export`"
    )
