"""The plain way to score, which ours is measured against: each replacement runs the whole model."""

from __future__ import annotations

import time

import torch

from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.reference import Reference
from adaptive.llm_puzzle.space import LayerSpace

SAMPLES = 3  # layers at which replacements are timed


@torch.inference_mode()
def full_forward_seconds(
    model: PuzzleForCausalLM,
    space: list[LayerSpace],
    library: Library,
    rows: Rows,
    batch_tokens: int,
) -> float | None:
    """Median seconds that a replacement takes with all layers, on all rows.

    The parent's last hidden states are taken to be known, the replaced layer to be at hand, and
    logits to be compared as ours are: a loop that does these again is slower. Timed on one batch,
    at a few layers.

    Args:
        model: the parent, with all of its layers on the device.
        space: options of every layer.
        library: holds all their variants.
        rows: what is scored on, on the model's device.
        batch_tokens: tokens in a forward pass.

    Returns:
        None where no layer is searched.
    """
    searched = [i for i, options in enumerate(space) if len(options.blocks) > 1]
    if not searched:
        return None
    chosen = [searched[round(k * (len(searched) - 1) / 2)] for k in range(SAMPLES)]
    count = max(1, batch_tokens // rows.ids_NT.shape[1])
    batch = rows.select(torch.arange(min(count, len(rows)), device=rows.ids_NT.device))
    parent_BTH = model.model(batch.ids_NT, use_cache=False).last_hidden_state
    seconds = []
    for layer in [chosen[0], *chosen]:
        replaced = _layer(model, library, layer, space[layer].blocks[1])  # a narrower FFN
        begun = _now(model)
        _replacement(model, layer, replaced, batch, parent_BTH)
        seconds.append(_now(model) - begun)
    return sorted(seconds[1:])[SAMPLES // 2] * rows.tokens / batch.tokens  # the first warms up


def _layer(
    model: PuzzleForCausalLM, library: Library, layer: int, block: BlockOption
) -> PuzzleLayer:
    """A whole layer with both of its halves replaced."""
    whole = PuzzleLayer(model.config, block.to_config()).to(model.device, model.dtype)
    for option in (block.attention, block.ffn):
        whole.load_state_dict(library.load(model, layer, option).state_dict(), strict=False)
    return whole.eval()


def _replacement(
    model: PuzzleForCausalLM,
    layer: int,
    replaced: PuzzleLayer,
    batch: Rows,
    parent_BTH: torch.Tensor,
) -> tuple[float, float]:
    """KL from the parent and rise of the next-token loss, summed over the tokens of a batch."""
    own = model.model.layers[layer]
    model.model.layers[layer] = replaced
    try:
        child_BTH = model.model(batch.ids_NT, use_cache=False).last_hidden_state
    finally:
        model.model.layers[layer] = own
    found = Reference(model, parent_BTH, batch).compare(child_BTH[None])
    return found["kl"].item(), found["lm_loss"].item()


def _now(model: PuzzleForCausalLM) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
