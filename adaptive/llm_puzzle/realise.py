"""Putting a child together from the parent and the library."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig


def child_config(parent: PuzzleModelConfig, blocks: Sequence[BlockOption]) -> PuzzleModelConfig:
    """The parent's configuration with other blocks."""
    values = parent.to_dict() | {"blocks": [block.to_config() for block in blocks]}
    return PuzzleModelConfig(**values)


def random_model(config: PuzzleModelConfig, like: PuzzleForCausalLM) -> PuzzleForCausalLM:
    """A model with random weights, of the dtype and on the device of another: for timing."""
    model: PuzzleForCausalLM = PuzzleForCausalLM(config)
    model.to(device=like.device, dtype=like.dtype)  # pyrefly: ignore[missing-argument]
    # Rotary frequencies are not weights: they stay in single precision.
    model.model.rotary_emb = copy.deepcopy(like.model.rotary_emb)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def realise(
    parent: PuzzleForCausalLM, blocks: Sequence[BlockOption], library: Library
) -> PuzzleForCausalLM:
    """A child model with its own copy of all weights.

    Args:
        parent: gives the embedding, the head, the final norm and every sub-block that is kept.
        blocks: one a layer.
        library: gives the other sub-blocks, and rounds those of fewer bits.
    """
    child = random_model(child_config(parent.config, blocks), parent)
    state = {
        name: weight
        for name, weight in parent.state_dict().items()
        if not name.startswith("model.layers.")
    }
    for i, block in enumerate(blocks):
        for option in (block.attention, block.ffn):
            if option.kind == "no_op":
                continue
            part = library.weights(parent, i, option)
            state |= {f"model.layers.{i}.{name}": weight for name, weight in part.items()}
    child.load_state_dict(state)
    return child.eval().requires_grad_(False)
