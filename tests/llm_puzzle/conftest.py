"""Parents small enough to take apart in a second, and children put together at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import Parent, load_parent

CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,!?'\n"
SPECIAL = ("<unk>", "<s>", "</s>")
BOS, EOS = 1, 2
VOCAB = len(SPECIAL) + len(CHARACTERS)

# Weights ten times as large as usual: what a sub-block does is then seen in the logits.
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small are slower on many threads, and far slower on busy ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocab = {token: i for i, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture(scope="session")
def parent_dir(tmp_path_factory, tokenizer) -> Path:
    """A random Llama of three layers with four KV heads and its tokenizer, as transformers saves
    them. Tests that change it copy it first."""
    directory = tmp_path_factory.mktemp("models") / "parent"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def parent(parent_dir) -> Parent:
    return load_parent(str(parent_dir), torch.device("cpu"), torch.float32)


@pytest.fixture
def shape() -> dict[str, Any]:
    """Arguments of the parent's configuration."""
    return dict(SHAPE)


def gqa(kv_heads: int, window: int | None = None) -> dict[str, Any]:
    entry = {"kind": "gqa", "num_key_value_heads": kv_heads}
    return entry | ({"sliding_window": window} if window else {})


def mlp(width: int) -> dict[str, Any]:
    return {"kind": "mlp", "intermediate_size": width}


LINEAR, NO_OP = {"kind": "linear"}, {"kind": "no_op"}

CHILDREN: dict[str, list[tuple[dict, dict]]] = {
    "mixed heads": [(gqa(4), mlp(48)), (gqa(1), mlp(16)), (gqa(2), NO_OP), (gqa(4), LINEAR)],
    "no-op first": [(NO_OP, mlp(48)), (gqa(2), mlp(48)), (LINEAR, mlp(8)), (gqa(1), mlp(48))],
    "linear first": [(LINEAR, mlp(48)), (gqa(4), NO_OP)],
    "empty layer": [(NO_OP, NO_OP), (gqa(2), mlp(48)), (NO_OP, NO_OP)],
    "no attention": [(NO_OP, mlp(48)), (LINEAR, mlp(16)), (NO_OP, LINEAR)],
    "nothing": [(NO_OP, NO_OP)],
    "windows": [(gqa(4, 5), mlp(48)), (gqa(2), mlp(16)), (NO_OP, mlp(8)), (gqa(1, 5), mlp(8))],
    "windows only": [(NO_OP, mlp(48)), (gqa(2, 5), mlp(16)), (gqa(4, 5), mlp(16))],
}
"""Layers of heterogeneous children by what is awkward about them."""


def blocks_of(layers: list[tuple[dict, dict]]) -> list[BlockOption]:
    return [BlockOption.from_config({"attention": a, "ffn": f}) for a, f in layers]


@pytest.fixture(params=CHILDREN)
def child(request, make_child) -> PuzzleForCausalLM:
    """Each of the heterogeneous children in turn."""
    return make_child(request.param)


@pytest.fixture(scope="session")
def make_child(parent) -> Callable[..., PuzzleForCausalLM]:
    """Builds a random child by its name, with changes to its configuration."""
    from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig

    def make(name: str, **changes: Any) -> PuzzleForCausalLM:
        blocks = [block.to_config() for block in blocks_of(CHILDREN[name])]
        values = parent.model.config.to_dict() | {"blocks": blocks} | changes
        torch.manual_seed(1)
        return PuzzleForCausalLM(PuzzleModelConfig(**values)).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def rows() -> Rows:
    """Twenty random rows of 4 to 17 tokens."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(4, 18, (20,), generator=generator).tolist()
    return Rows.pack(
        [BOS, *torch.randint(3, VOCAB, (n - 1,), generator=generator).tolist()] for n in lengths
    )
