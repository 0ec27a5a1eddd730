"""Random heterogeneous children, for hypothesis."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from tiny_puzzle import LINEAR, NO_OP, SHAPE, blocks_of, gqa, mlp

from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig

ATTENTION = [gqa(4), gqa(2), gqa(1), LINEAR, NO_OP]
FFN = [mlp(256), mlp(48), mlp(8), LINEAR, NO_OP]

layers = st.lists(
    st.tuples(st.sampled_from(ATTENTION), st.sampled_from(FFN)), min_size=1, max_size=4
)
"""Layers of a child."""


def config_of(chosen: list[tuple[dict, dict]], **changes: Any) -> PuzzleModelConfig:
    """The configuration of a child of 32 channels and four heads."""
    derived = ("num_key_value_heads", "num_hidden_layers", "intermediate_size")
    values = {name: value for name, value in SHAPE.items() if name not in derived}
    blocks = [block.to_config() for block in blocks_of(chosen)]
    values |= {"tie_word_embeddings": False, "blocks": blocks}
    return PuzzleModelConfig(**(values | changes))


def random_child(
    chosen: list[tuple[dict, dict]], dtype: torch.dtype = torch.float32, **changes: Any
) -> PuzzleForCausalLM:
    """A child with random weights, biases and norms."""
    torch.manual_seed(3)
    model: PuzzleForCausalLM = PuzzleForCausalLM(config_of(chosen, **changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.add_(torch.randn_like(weight) / 4)
    return model.to(dtype).eval().requires_grad_(False)  # pyrefly: ignore[bad-argument-type]
