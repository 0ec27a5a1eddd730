"""A byte-level BPE tokenizer of our own, in the files that AutoTokenizer reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BOS, EOS = "<|bos|>", "<|eos|>"
BOS_ID, EOS_ID = 0, 1


def train_tokenizer(documents: Iterable[str], vocab: int) -> Tokenizer:
    """Learns ``vocab`` tokens (BOS and EOS, 256 bytes, merges); nothing is out of vocabulary.

    ``encode`` puts BOS in front, as Llama's tokenizers do.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS}:1 $B:1",
        special_tokens=[(BOS, BOS_ID)],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path, context: int) -> None:
    """Writes ``tokenizer.json`` and the ``tokenizer_config.json`` that AutoTokenizer wants."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode_documents(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    """One stream of ``BOS text EOS BOS text EOS ...``: uint16 [tokens]."""
    encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=True)
    return np.concatenate([np.array([*e.ids, EOS_ID], np.uint16) for e in encodings])


def token_bytes(tokenizer: Tokenizer) -> np.ndarray:
    """UTF-8 bytes of each token's text (0 for BOS and EOS): int64 [vocab].

    A byte-level token is spelt with one character a byte, so its length counts its bytes.
    """
    vocab = tokenizer.get_vocab()
    sizes = np.zeros(len(vocab), np.int64)
    for token, index in vocab.items():
        sizes[index] = 0 if index in (BOS_ID, EOS_ID) else len(token)
    return sizes
