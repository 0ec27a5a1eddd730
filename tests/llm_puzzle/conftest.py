"""Parents small enough to take apart in a second, and children put together at random."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_puzzle import BOS, CHILDREN, SHAPE, VOCAB, blocks_of, character_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.parent import Parent, load_parent
from adaptive.llm_puzzle.realise import realise_child


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small are slower on many threads, and far slower on busy ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def frozen_modules():
    """Clocks collect garbage before they measure; the modules of transformers need no looking at,
    and doing so hundreds of times takes longer than the measurements."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


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


@pytest.fixture(params=CHILDREN)
def child(request, make_child) -> PuzzleForCausalLM:
    """Each of the heterogeneous children in turn."""
    return make_child(request.param)


@pytest.fixture(scope="session")
def make_child(parent) -> Callable[..., PuzzleForCausalLM]:
    """Builds a random child by its name, with changes to its configuration."""

    def make(name: str, **changes: Any) -> PuzzleForCausalLM:
        blocks = [block.to_config() for block in blocks_of(CHILDREN[name])]
        values = parent.model.config.to_dict() | {"blocks": blocks} | changes
        torch.manual_seed(1)
        return PuzzleForCausalLM(PuzzleModelConfig(**values)).eval().requires_grad_(False)

    return make


@pytest.fixture
def student(parent) -> PuzzleForCausalLM:
    """The parent without its middle layer."""
    empty = {"attention": {"kind": "no_op"}, "ffn": {"kind": "no_op"}}
    blocks = list(parent.blocks)
    blocks[1] = BlockOption.from_config(empty)
    return realise_child(parent.model, blocks, Library(Path()))


@pytest.fixture(scope="session")
def rows() -> Rows:
    """Twenty random rows of 4 to 17 tokens."""
    generator = torch.Generator().manual_seed(7)
    lengths = torch.randint(4, 18, (20,), generator=generator).tolist()
    return Rows.pack(
        [BOS, *torch.randint(3, VOCAB, (n - 1,), generator=generator).tolist()] for n in lengths
    )
