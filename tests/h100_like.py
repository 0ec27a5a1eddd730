"""Synthetic tables: an H100-like device by formula, on grids as shipped tables have them."""

from __future__ import annotations

import itertools
import math
import random

from adaptive.core.cost import FFN, Attention, Block, MeasuredTable, Origin, Row, RowKey

DECODE = ((1, 4, 16, 64, 128, 256), (127, 511, 1023, 2047, 8191, 32767))
PREFILL = ((1, 4, 16), (128, 256, 512, 1024, 2048, 4096, 8192))
FRACTIONS = (1, 0.87, 0.75, 0.5, 0.25, 0.2, 0.1)
FIXED, BANDWIDTH, RATE = 25e-6, 3.0e12, 8e14


def seconds(block: Block, phase: str, batch: int, length: int) -> float:
    """25 us + bytes at 3 TB/s + FLOPs at 800 TFLOP/s, tokens in tiles of 128."""
    if phase == "prefill":
        tokens, flops = batch * length, block.prefill_flops(batch, length)
        traffic = block.prefill_bytes(batch, length, "bf16")
    else:
        tokens, flops = batch, block.decode_flops(batch, length)
        traffic = block.decode_bytes(batch, length, "bf16")
    padding = (math.ceil(tokens / 128) * 128 - tokens) * block.token_flops()
    return FIXED + traffic / BANDWIDTH + (flops + padding) / RATE


def rows(noise: float = 0.0) -> list[Row]:
    """Attention decode and prefill, with holes where the cache takes over 30 GB, and FFNs."""
    subjects: list[tuple[Block, str, int, int]] = []
    for hidden, heads, width in ((4096, 32, 14336), (8192, 64, 28672)):
        for kv_heads in (8, 4, 2, 1):
            block = Attention(hidden, heads, kv_heads, 128)
            for batch, context in itertools.product(*DECODE):
                if block.cache_bytes(batch, context, "bf16") < 30e9:
                    subjects.append((block, "decode", batch, context))
            subjects += [(block, "prefill", *size) for size in itertools.product(*PREFILL)]
        for fraction in FRACTIONS:
            ffn = FFN(hidden, round(width * fraction / 256) * 256)
            subjects += [(ffn, "prefill", 2**k, 1) for k in range(15)]
    dice = random.Random(0)
    return [
        Row(
            RowKey.of(*subject, "bf16", "graph"), seconds(*subject) * math.exp(dice.gauss(0, noise))
        )  # type: ignore[arg-type]
        for subject in subjects
    ]


def table(noise: float = 0.0, **options) -> MeasuredTable:
    """The rows as a table of the clock mode "graph"."""
    return MeasuredTable(Origin("h100-like", "2.15.0", 0), rows(noise), mode="graph", **options)
