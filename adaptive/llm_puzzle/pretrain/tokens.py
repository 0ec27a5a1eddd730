"""Token streams on disk, training windows drawn from them, validation documents.

Dimensions: N tokens of a stream, D documents, B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.pretrain.corpus import read_text, split_documents
from adaptive.llm_puzzle.pretrain.settings import ParentShape, Source
from adaptive.llm_puzzle.pretrain.tokenizer import (
    BOS_ID,
    EOS_ID,
    encode_documents,
    save_tokenizer,
    token_bytes,
    train_tokenizer,
)


def prepare_tokens(
    train: Mapping[str, Source], valid: Mapping[str, Source], shape: ParentShape, directory: Path
) -> dict[str, int]:
    """Trains the tokenizer on the training text and writes everything the training needs.

    Writes ``tokenizer.json``, ``tokenizer_config.json``, ``tokens.safetensors`` (uint16 streams
    ``train.NAME`` and ``valid.NAME``, and ``token_bytes``) and ``tokens.json`` (repeats, counts).

    Returns:
        Number of tokens by stream.
    """
    from safetensors.numpy import save_file

    documents = {
        f"{split}.{name}": split_documents(read_text(source.path), source.documents)
        for split, sources in (("train", train), ("valid", valid))
        for name, source in sources.items()
    }
    # The tokenizer sees the same mixture as the model.
    mixture = [
        document
        for name, source in train.items()
        for _ in range(max(1, round(source.repeat)))
        for document in documents[f"train.{name}"]
    ]
    tokenizer = train_tokenizer(mixture, shape.vocab)
    if tokenizer.get_vocab_size() != shape.vocab:
        raise UserError(
            f"the training text yields {tokenizer.get_vocab_size()} tokens, fewer than "
            f"shape.vocab={shape.vocab}: give more text or a smaller vocabulary"
        )
    streams = {key: encode_documents(tokenizer, texts) for key, texts in documents.items()}
    counts = {key: int(stream.size) for key, stream in streams.items()}
    directory.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, directory, shape.context)
    save_file({**streams, "token_bytes": token_bytes(tokenizer)}, directory / "tokens.safetensors")
    about = {
        "repeat": {name: source.repeat for name, source in train.items()},
        "tokens": counts,
        "documents": {key: len(texts) for key, texts in documents.items()},
        "bytes": {key: sum(len(t.encode()) for t in texts) for key, texts in documents.items()},
    }
    (directory / "tokens.json").write_text(json.dumps(about, indent=2) + "\n")
    return counts


@dataclass
class Documents:
    """Validation documents: BOS first, no EOS, cut at the context length."""

    ids_DT: Tensor
    """int64, padded with EOS."""
    scored_DT: Tensor
    """bool: tokens of the text, which are the ones predicted (neither BOS nor padding)."""
    bytes_D: Tensor
    """UTF-8 bytes of the scored tokens: int64, on the CPU."""


class TokenData:
    """The streams of ``prepare_tokens`` on one device."""

    def __init__(self, directory: Path, device: torch.device | str = "cpu"):
        from safetensors.numpy import load_file

        arrays = load_file(directory / "tokens.safetensors")
        about = json.loads((directory / "tokens.json").read_text())
        self.device = torch.device(device)
        self.token_bytes = arrays.pop("token_bytes")
        self.valid = {k[6:]: v for k, v in arrays.items() if k.startswith("valid.")}
        train = {k[6:]: v for k, v in sorted(arrays.items()) if k.startswith("train.")}
        stream = np.concatenate(list(train.values()))
        self.tokens_N = torch.from_numpy(stream.astype(np.int32)).to(self.device)
        self._sizes = torch.tensor([v.size for v in train.values()])
        self._weights = torch.tensor(
            [v.size * float(about["repeat"][name]) for name, v in train.items()]
        )
        self._starts_D = torch.from_numpy(np.flatnonzero(stream == BOS_ID))

    def batch(self, step: int, size: int, length: int, seed: int) -> Tensor:
        """Training windows of one step, a function of the arguments alone on every device.

        Sources are drawn in proportion to tokens x repeat. Every second window is moved back to
        the start of its document, so that the model learns to write from BOS alone.

        Returns:
            int64 [size, length + 1].
        """
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        source_B = torch.multinomial(self._weights, size, replacement=True, generator=draw)
        offset_B = torch.rand(size, generator=draw, dtype=torch.float64)
        ends = self._sizes.cumsum(0)
        start_B = ends[source_B] - self._sizes[source_B] * (1 - offset_B)
        start_B = start_B.long()
        document_B = torch.searchsorted(self._starts_D, start_B, right=True) - 1
        start_B[::2] = self._starts_D[document_B][::2]
        start_B = start_B.clamp(max=len(self.tokens_N) - length - 1)
        index_BT = start_B[:, None] + torch.arange(length + 1)
        if self.device.type == "cuda":
            index_BT = index_BT.pin_memory().to(self.device, non_blocking=True)
        return self.tokens_N[index_BT].long()

    def validation(self, length: int) -> dict[str, Documents]:
        """The validation documents by set, each one row of at most ``length`` tokens."""
        return {name: self._documents(v, length) for name, v in self.valid.items()}

    def _documents(self, stream: np.ndarray, length: int) -> Documents:
        starts = np.flatnonzero(stream == BOS_ID)
        ends = np.flatnonzero(stream == EOS_ID)
        ids = np.full((len(starts), length), EOS_ID, np.int64)
        scored = np.zeros((len(starts), length), bool)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            count = min(length, end - start)
            ids[row, :count] = stream[start : start + count]
            scored[row, 1:count] = True
        text_bytes = (self.token_bytes[ids] * scored).sum(1)
        return Documents(
            torch.from_numpy(ids).to(self.device),
            torch.from_numpy(scored).to(self.device),
            torch.from_numpy(text_bytes),
        )
