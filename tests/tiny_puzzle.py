"""A parent and heterogeneous children small enough for tests to take apart in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.distill import build_variants
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.parent import Parent
from adaptive.llm_puzzle.settings import DistillConfig
from adaptive.llm_puzzle.space import LayerSpace

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


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocab = {token: i for i, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


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


def library_of(
    parent: Parent,
    space: Sequence[LayerSpace],
    rows: Rows,
    directory: Path,
    config: DistillConfig | None = None,
    **settings: Any,
) -> Library:
    """All variants of a space; in their closed-form starts unless ``config`` says otherwise."""
    made, config = Library(directory), config or DistillConfig(tokens=0)
    wanted = [layer.variants for layer in space]
    build_variants(parent.model, wanted, rows, config, made, **{"seed": 0, "batch": 8} | settings)
    return made


def files(directory: Path, pattern: str = "*") -> dict[str, bytes]:
    """What lies below a directory, by path."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob(pattern)
        if path.is_file()
    }


# Runs of the recipe on this parent that time nothing: prices are a roofline's.
ROOFLINE = (
    "device=cpu",
    "data.batch=32",
    "workload.batch=2",
    "workload.prompt=16",
    "space.kv_heads=[1]",
    "space.ffn_fractions=[0.5]",
    "cost.model=roofline",
    "cost.hardware=h100-sxm",
)
