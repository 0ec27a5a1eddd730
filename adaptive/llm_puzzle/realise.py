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


@torch.no_grad()
def realise_child(
    parent: PuzzleForCausalLM,
    blocks: Sequence[BlockOption],
    library: Library,
    device: torch.device | str | None = None,
) -> PuzzleForCausalLM:
    """A child model with its own copy of all weights; nothing else is held but a layer's parts.

    Args:
        parent: gives the embedding, the head, the final norm and every sub-block that is kept,
            unless the library has them of a distilled child.
        blocks: one a layer.
        library: gives the other sub-blocks, pairs that it holds trained together as such, and
            rounds those of fewer bits.
        device: of the child; None is the parent's.
    """
    device = device or parent.device
    with torch.device("meta"):
        child = PuzzleForCausalLM(child_config(parent.config, blocks))
    child.to_empty(device=device)
    child.to(parent.dtype)  # pyrefly: ignore[bad-argument-type]
    child.model.rotary_emb = copy.deepcopy(parent.model.rotary_emb).to(device)
    child.tie_weights()
    for name, weight in library.trunk(parent).items():
        child.get_parameter(name).copy_(weight)
    for i, block in enumerate(blocks):
        layer, part = child.model.layers[i], library.block(parent, i, block)
        for name, weight in part.items():
            layer.get_parameter(name).copy_(weight)
        assert part.keys() == {name for name, _ in layer.named_parameters()}
    return child.eval().requires_grad_(False)
