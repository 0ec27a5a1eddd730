"""Rows longer than those of calibration, from the same text: for long contexts.

Evaluation by position and the long phase of global distillation read the text again, as it was
before calibration cut it into rows of ``data.length`` tokens, and keep to their side of the split
between training and validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.data import Rows, documents
from adaptive.llm_puzzle.settings import DataConfig


@dataclass(frozen=True)
class LongRows:
    """Rows of a greater length.

    Attributes:
        rows: all of exactly one length, unless all text together is shorter.
        joined: documents were too short, so each row holds several, one after the other.
    """

    rows: Rows
    joined: bool


def long_rows(
    source: str,
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    key: str,
    length: int,
    tokens: int,
    part: slice,
) -> LongRows:
    """Reads rows of ``length`` tokens from part of a text.

    Rows are the beginnings of documents that are long enough. Where those do not hold ``tokens``
    tokens, all documents of the part are joined, each with its BOS, and cut up. An undivided text
    is one long document.

    Args:
        source: as in :func:`~adaptive.llm_puzzle.data.read_rows`.
        config: how calibration cut the text into rows.
        tokenizer: of the parent.
        key: the setting that names the source, for messages.
        length: of a row, BOS included.
        tokens: how many to read, as far as there are so many.
        part: calibration rows whose text may be read, as their numbers from ``start`` to ``stop``.

    Raises:
        UserError: the part holds no text.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    room = length - len(bos)
    long: list[list[int]] = []
    joined: list[int] = []
    count = 0
    for ids in _texts(source, config, tokenizer, key, part):
        if config.document_start is None:
            cuts = range(0, len(ids) - room + 1, room)
        else:
            cuts = range(0, 1 if len(ids) >= room else 0)
        for cut in cuts:
            long.append(bos + ids[cut : cut + room])
            count += length
        if len(joined) < tokens:
            joined += bos + ids
        if count >= tokens:
            break
    most = -(-tokens // length)
    if count >= tokens or (long and config.document_start is None):
        return LongRows(Rows.pack(long[:most]), False)
    if len(joined) < 2:
        raise UserError(f"{key}={source} holds no text for rows of {length} tokens")
    pieces = [joined[cut : cut + length] for cut in range(0, len(joined) - length + 1, length)]
    return LongRows(Rows.pack((pieces or [joined])[:most]), True)


def _texts(
    source: str, config: DataConfig, tokenizer: PreTrainedTokenizerBase, key: str, part: slice
) -> Iterator[list[int]]:
    """The tokens of each document that calibration rows ``part`` are from, uncut.

    Of an undivided file, whose rows are consecutive pieces, it is the tokens of those rows.
    """
    start, stop = part.start or 0, part.stop
    bos = int(tokenizer.bos_token_id is not None)
    room = config.length - bos
    row = 0
    for document in documents(source, config, key):
        if stop is not None and row >= stop:
            return
        ids = tokenizer.encode(document, add_special_tokens=False)
        if len(ids) + bos < 2:
            continue  # as calibration does: nothing to predict
        rows = 1 if config.document_start is not None else -(-len(ids) // room)
        if config.document_start is None and len(ids) % room == 1 and not bos:
            rows -= 1
        low, high = max(start - row, 0), rows if stop is None else min(stop - row, rows)
        row += rows
        if low < high:
            yield ids if config.document_start is not None else ids[low * room : high * room]
