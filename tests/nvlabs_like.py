"""A made-up block library in the format of NVlabs/puzzle, for tests alone; nothing is theirs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from adaptive.llm_puzzle.settings import ShapeConfig

SHARES = (100, 75, 62.5, 50, 25, 20, 10, 0)
PARENT_LM_LOSS = 2.5
BATCH, LENGTH = 256, 1200

LLAMA_70B = ShapeConfig(
    layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, intermediate=28672
)
SHAPE = ShapeConfig(
    layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, intermediate=1024, vocab=512
)


def overrides(shape: ShapeConfig = SHAPE) -> list[str]:
    """A parent's shape as settings."""
    return [f"shape.{name}={value}" for name, value in vars(shape).items()]


def attention_text(kv_heads: int, parent: int) -> str:
    if not kv_heads:
        return "attention = no_op (parent * 0%)"
    return f"attention = {kv_heads} kv heads (parent * {100 * kv_heads // parent}%)"


def ffn_text(width: int, share: float) -> str:
    if not width:
        return "ffn = no_op (parent * 0%)"
    return f"ffn = intermediate size {width / 1000:.0f}e3 (parent * {int(share)}%)"


def text(kv_heads: int, width: int, share: float, shape: ShapeConfig = SHAPE) -> str:
    """The name of a variant."""
    return f"{attention_text(kv_heads, shape.kv_heads)}\t&&\t{ffn_text(width, share)}"


def width_of(share: float, shape: ShapeConfig = SHAPE) -> int:
    """A share of the parent's width, rounded to a multiple of 64, for large ones of 256."""
    multiple = 256 if shape.intermediate >= 4096 else 64
    return round(shape.intermediate * share / 100 / multiple) * multiple


def stats(kv_heads: int, width: int, shape: ShapeConfig = SHAPE) -> dict[str, Any]:
    """Costs of a variant: parameters exact, bytes and times in proportion to them."""
    heads = shape.heads + kv_heads
    attention = kv_heads and shape.hidden * (2 * heads * shape.head_dim + 1)
    ffn = width and shape.hidden * (3 * width + 1)
    cache = BATCH * LENGTH * 2 * kv_heads * shape.head_dim
    halves = {
        "attention_memory_mib": (attention + cache) / 2**20,
        "attention_runtime_ms": (2.0 + attention / 5e5) if attention else 0,
        "attention_num_params": attention,
        "ffn_memory_mib": ffn / 2**20,
        "ffn_runtime_ms": (5.0 + ffn / 1.5e6) if ffn else 0,
        "ffn_num_params": ffn,
    }
    whole = {
        name: halves[f"attention_{name}"] + halves[f"ffn_{name}"]
        for name in ("memory_mib", "runtime_ms", "num_params")
    }
    return {"num_kv_heads": kv_heads, "ffn_intermediate_size": width, **whole, **halves}


def entry(
    kv_heads: int, width: int, kl: float, lm_loss: float, shape: ShapeConfig = SHAPE
) -> dict[str, Any]:
    return {
        "stats": stats(kv_heads, width, shape),
        "metrics": {"kl_div": kl, "lm_loss": PARENT_LM_LOSS + lm_loss},
    }


def parent_text(shape: ShapeConfig = SHAPE) -> str:
    return text(shape.kv_heads, shape.intermediate, 100, shape)


def make(shape: ShapeConfig = SHAPE, seed: int = 0) -> dict[str, Any]:
    """The content of the three files by name: 16 variants a layer, some ladders not monotone."""
    rng = random.Random(seed)
    layers: dict[str, Any] = {}
    for i in range(shape.layers):
        layer = layers[f"layer_{i}"] = {}
        for kv_heads in (shape.kv_heads, 0):
            for share in SHARES:
                width = width_of(share, shape)
                lost = (1 - share / 100) ** 2 + (0.0 if kv_heads else 0.4)
                kl = lost * (1 + i) * rng.uniform(0.5, 1.5)
                lm_loss = kl * rng.uniform(-0.1, 0.6)
                if kv_heads and share == 100:
                    kl = lm_loss = 0.0
                name = text(kv_heads, width, share, shape)
                layer[name] = entry(kv_heads, width, kl, lm_loss, shape)
    return {
        "measurement_info.json": {
            "batch_size": BATCH,
            "sequence_length": LENGTH,
            "gpu": "made-up GPU",
            "dtype": "fp8",
        },
        "block_library.json": layers,
        "parent_block_stats.json": entry(shape.kv_heads, shape.intermediate, 0.0, 0.0, shape),
    }


def write(directory: Path, content: dict[str, Any] | None = None) -> Path:
    """Writes the files and returns their directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in (make() if content is None else content).items():
        (directory / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return directory
