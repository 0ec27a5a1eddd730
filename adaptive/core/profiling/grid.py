"""Which blocks are measured at which sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptive.core.cost import Block, Conv2d, Head
from adaptive.core.cost.hf_config import decoder_from_config
from adaptive.core.cost.models import MODELS, DecoderShape, VitShape, block_variants
from adaptive.core.cost.table import Phase
from adaptive.core.errors import UserError
from adaptive.core.profiling.config import GridConfig, VariantsConfig


@dataclass(frozen=True)
class Request:
    """A time that is wanted: of a block, in a phase, at a size; see ``hardware.Subject``."""

    block: Block
    phase: Phase
    batch: int
    length: int


def model_shape(model: str) -> DecoderShape | VitShape:
    """The shape of a published model, of ``zoo:NAME``, or of a Hugging Face directory.

    Raises:
        UserError: it is none of them.
    """
    if model in MODELS:
        return MODELS[model]
    if model.startswith("zoo:"):
        from adaptive import zoo

        return decoder_from_config(zoo.path(model.removeprefix("zoo:"), zoo.LLAMA))
    if Path(model).exists() or os.sep in model:
        return decoder_from_config(model)
    raise UserError(
        "model takes zoo:NAME, a directory with a config.json, or a published shape: "
        f"{MODELS.unknown(model)}"
    )


def blocks_of(shape: DecoderShape | VitShape, variants: VariantsConfig) -> list[Block]:
    """Every distinct block to measure."""
    if isinstance(shape, VitShape):
        return list(dict.fromkeys(shape.stack().blocks))
    blocks = block_variants(
        shape,
        variants.kv_heads,
        variants.ffn_fractions,
        variants.ffn_multiple,
        variants.linear,
    )
    return list(dict.fromkeys(b.shard(n) for n in variants.tensor_parallel for b in blocks))


def requests(blocks: Sequence[Block], grid: GridConfig, vision: bool) -> Iterator[Request]:
    """Every size at which to measure every block, in the order of forwards that run together."""
    if vision:
        for tokens in grid.tokens:
            for batch in grid.batches:
                for block in blocks:
                    # A patch embedding sees the pixels of the patches.
                    pixels = block.stride**2 if isinstance(block, Conv2d) else 1
                    yield Request(block, "prefill", batch, tokens * pixels)
        return
    pointwise = [block for block in blocks if block.pointwise]
    attention = [block for block in blocks if not block.pointwise]
    for batch in grid.batches:
        for context in grid.contexts:
            yield from (Request(block, "decode", batch, context - 1) for block in attention)
        yield from (Request(block, "decode", batch, 0) for block in pointwise)
    for prompt in grid.prompts:
        for batch in grid.prefill_batches:
            if batch * prompt <= grid.prefill_tokens:
                yield from (Request(block, "prefill", batch, prompt) for block in blocks)
    most = max(*grid.batches, *grid.prefill_batches)
    # Between those: what depends on the number of tokens alone, at powers of two and half-way.
    for tokens in sorted({n * 2**i for n in (2, 3) for i in range(30)} | {1}):
        if tokens <= grid.prefill_tokens:
            yield from (
                Request(block, "prefill", tokens, 1)
                for block in pointwise
                # A head reads one position a sequence, however long the prompts.
                if not isinstance(block, Head) or tokens <= most
            )
