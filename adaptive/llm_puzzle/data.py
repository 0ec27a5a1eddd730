"""Calibration and validation text as rows of tokens.

Rows are padded on the right. Attention is causal, so padding never reaches a real token and no
attention mask is needed; losses leave padded positions out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.pretrain.corpus import read_text
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.settings import DataConfig
from adaptive.llm_puzzle.stream import StreamedLayers


@dataclass(frozen=True)
class Rows:
    """Token rows.

    Attributes:
        ids_NT: int64 tokens, [rows, length], zeros after each row's end.
        lengths_N: int64 tokens in each row.
    """

    ids_NT: torch.Tensor
    lengths_N: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids_NT)

    @property
    def tokens(self) -> int:
        return int(self.lengths_N.sum())

    def select(self, index: torch.Tensor) -> Rows:
        """Some rows, cut to the longest of them."""
        lengths = self.lengths_N[index]
        return Rows(self.ids_NT[index, : int(lengths.max())], lengths)

    def first(self, tokens: int) -> Rows:
        """The first rows that hold at least ``tokens`` tokens together (or all there are)."""
        count = int((self.lengths_N.cumsum(0) < tokens).sum()) + 1
        return self.select(torch.arange(min(count, len(self))))

    def to(self, device: torch.device) -> Rows:
        return Rows(self.ids_NT.to(device), self.lengths_N.to(device))

    @property
    def mask_NT(self) -> torch.Tensor:
        """True at real tokens."""
        positions = torch.arange(self.ids_NT.shape[1], device=self.ids_NT.device)
        return positions < self.lengths_N[:, None]

    @property
    def predicted_NT(self) -> torch.Tensor:
        """True at tokens whose successor is real: where a next-token loss is defined."""
        positions = torch.arange(self.ids_NT.shape[1], device=self.ids_NT.device)
        return positions < self.lengths_N[:, None] - 1

    def token_order(self, budget: int) -> Iterator[torch.Tensor]:
        """Indices of batches that hold all rows once and ``budget`` tokens at most.

        Padding counts, and a batch holds one row at least. Rows of like length are together.
        """
        order = self.lengths_N.argsort(stable=True, descending=True)
        start, lengths = 0, self.lengths_N[order].tolist()
        while start < len(order):
            size = max(1, budget // lengths[start])  # the longest of the batch
            yield order[start : start + size]
            start += size

    def token_batches(self, budget: int) -> Iterator[Rows]:
        """All rows once, in batches of :meth:`token_order`."""
        return (self.select(index) for index in self.token_order(budget))

    def training_indices(self, size: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
        """``steps`` random batches of row indices, epoch after epoch, fixed by the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        pool = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            while len(pool) < min(size, len(self)):
                pool = torch.cat([pool, torch.randperm(len(self), generator=generator)])
            batch, pool = pool[:size], pool[size:]
            yield batch

    def save(self, path: Path) -> None:
        save_file({"ids": self.ids_NT.int(), "lengths": self.lengths_N.int()}, path)

    @staticmethod
    def load(path: Path) -> Rows:
        tensors = load_file(path)
        return Rows(tensors["ids"].long(), tensors["lengths"].long())

    @staticmethod
    def concatenate(parts: list[Rows]) -> Rows:
        """All rows of all parts."""
        return Rows.pack(
            row[:n]
            for part in parts
            for row, n in zip(part.ids_NT.tolist(), part.lengths_N.tolist(), strict=True)
        )

    @staticmethod
    def pack(rows: Iterable[list[int]]) -> Rows:
        """Pads lists of tokens to the longest."""
        rows = list(rows)
        ids_NT = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids_NT[i, : len(row)] = torch.tensor(row)
        return Rows(ids_NT, torch.tensor([len(row) for row in rows]))


def steps_for(tokens: int, rows: Rows, batch: int) -> int:
    """Steps of ``batch`` rows that see about ``tokens`` tokens."""
    return max(1, round(tokens / (rows.tokens / len(rows) * min(batch, len(rows)))))


def read_rows(
    source: str,
    config: DataConfig,
    tokens: int,
    tokenizer: PreTrainedTokenizerBase | None,
    key: str,
) -> Rows:
    """Rows from text, at least ``tokens`` tokens of it where there is so much.

    Args:
        source: a file, a directory or a ``datasets`` name.
        config: says where documents start and how long a row is.
        tokens: how many tokens to read.
        tokenizer: of the parent.
        key: the setting that names the source, for messages.

    Raises:
        UserError: no such text, empty, not UTF-8, or the parent has no tokenizer.
    """
    if tokenizer is None:
        raise UserError(f"{key}={source}: the parent has no tokenizer.json to read text with")
    rows: list[list[int]] = []
    count = 0
    for row in _token_rows(source, config, tokenizer, key):
        rows.append(row)
        count += len(row)
        if count >= tokens:
            break
    if not rows:
        raise UserError(f"{key}={source} holds no text")
    return Rows.pack(rows)


def _token_rows(
    source: str, config: DataConfig, tokenizer: PreTrainedTokenizerBase, key: str
) -> Iterator[list[int]]:
    bos = tokenizer.bos_token_id
    start = [] if bos is None else [bos]
    room = config.length - len(start)
    for document in documents(source, config, key):
        ids = tokenizer.encode(document, add_special_tokens=False)
        # Documents are cut off, undivided files are cut up.
        cuts = range(0, len(ids), room) if config.document_start is None else (0,)
        for cut in cuts:
            if len(row := start + ids[cut : cut + room]) > 1:
                yield row


def documents(source: str, config: DataConfig, key: str) -> Iterator[str]:
    """The documents of a text source, one after the other."""
    path = Path(source).expanduser()
    texts = [read_text(path)] if path.exists() else _hub_texts(source, config.column, key)
    if config.document_start is None:
        yield from (text for text in texts if text.strip())
        return
    try:
        boundary = re.compile(config.document_start)
    except re.error as error:
        raise UserError(f"data.document_start is not a regular expression: {error}") from None
    for text in texts:
        for document in boundary.split(text):
            if document and document.strip():
                yield document.strip()


def _hub_texts(name: str, column: str, key: str) -> Iterator[str]:
    """A column of a `datasets` data set, given as NAME, NAME:SUBSET or NAME:SUBSET:SPLIT."""
    missing = f"{key}={name} is neither a file nor a directory"
    if "." in Path(name).suffix or name.startswith(("/", "./", "../", "~")):
        raise UserError(missing)
    try:
        from datasets import load_dataset  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            f"{missing}, and reading it as a data set needs `pip install datasets`"
        ) from None
    repository, subset, split, *more = [*name.split(":"), "", ""]
    if any(more):
        raise UserError(f"{key}={name} has too many parts: give NAME:SUBSET:SPLIT")
    try:
        data = load_dataset(repository, subset or None, split=split or "train", streaming=True)
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise UserError(
            f"{missing} nor a data set to be had ({type(error).__name__}); check the name and the "
            "network"
        ) from error
    for record in data:
        if column not in record:
            raise UserError(
                f"data.column={column} is not in {name}, choose one of {', '.join(record)}"
            )
        yield record[column]


def random_rows(vocab: int, length: int, tokens: int) -> Rows:
    """Rows of tokens drawn at random, at least ``tokens`` of them: they take as long as text."""
    generator = torch.Generator().manual_seed(0)
    count = -(-tokens // length)
    ids_NT = torch.randint(vocab, (count, length), generator=generator)
    return Rows(ids_NT, torch.full((count,), length))


@torch.inference_mode()
def sample_rows(
    model: PuzzleForCausalLM, length: int, tokens: int, batch: int, temperature: float = 1.0
) -> Iterator[Rows]:
    """Batches of rows sampled from a model itself, each from BOS on until EOS or ``length``.

    No data set is needed, and what the parent would say is what a child has to say.

    Args:
        model: the parent; its random state is PyTorch's global one.
        length: tokens in a row, at most.
        tokens: tokens in all, at least.
        batch: rows sampled at once.
        temperature: of sampling.

    Raises:
        UserError: the parent's configuration names no BOS token to start from.
    """
    bos = model.config.bos_token_id
    if bos is None:
        raise UserError(
            "data.calibration=self needs a parent with a bos_token_id; name a text file"
        )
    if isinstance(model.model.layers, StreamedLayers):
        raise UserError(
            "data.calibration=self needs the whole parent on the device, which has no room for "
            "it; name a text file or a data set"
        )
    eos = model.config.eos_token_id
    ends = torch.tensor([eos] if isinstance(eos, int) else eos or [], device=model.device)
    engine = engine_of(model)
    caches = engine.make_caches(batch, length)
    count = 0
    while count < tokens:
        ids_BT = torch.full((batch, length), bos, device=model.device)
        ended_B = torch.zeros(batch, dtype=torch.bool, device=model.device)
        lengths_B = torch.full((batch,), length, device=model.device)
        for position in range(length - 1):
            logits_BV, _ = engine.decode(ids_BT[:, position], position, caches)
            next_B = torch.multinomial((logits_BV.float() / temperature).softmax(-1), 1)[:, 0]
            ids_BT[:, position + 1] = next_B
            ends_now_B = torch.isin(next_B, ends) & ~ended_B
            lengths_B[ends_now_B] = position + 2
            ended_B |= ends_now_B
            if ended_B.all():
                break
        count += int(lengths_B.sum())
        yield Rows(ids_BT, lengths_B).to(torch.device("cpu"))
