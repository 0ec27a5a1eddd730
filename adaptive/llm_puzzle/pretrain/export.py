"""The last step: round the weights, measure what was lost, write the checkpoint and its numbers."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from adaptive.llm_puzzle.pretrain.model import evaluate, load_parent, sample_texts, save_parent
from adaptive.llm_puzzle.pretrain.tokens import Documents

HALF = ("float16", "bfloat16")


def export_parent(
    model: LlamaForCausalLM, validation: dict[str, Documents], tokens: Path, directory: Path
) -> dict[str, Any]:
    """Writes the checkpoint in the half precision that loses less.

    All losses are computed in float32; only the stored weights are rounded.

    Returns:
        ``dtype``, ``parameters``, ``bytes`` of the weights, ``valid`` (by set: loss in nats a
        token, bits a byte, tokens), ``rounding`` (by dtype: mean loss minus the unrounded one),
        ``samples`` written from BOS alone.
    """
    device = next(model.parameters()).device
    exact = _mean({name: evaluate(model.eval(), docs) for name, docs in validation.items()})
    valid: dict[str, dict[str, dict[str, float]]] = {}
    for dtype in HALF:
        save_parent(model, tokens, directory, dtype)
        rounded = load_parent(directory, device)
        valid[dtype] = {name: evaluate(rounded, docs) for name, docs in validation.items()}
    best = min(HALF, key=lambda dtype: _mean(valid[dtype]))
    save_parent(model, tokens, directory, best)
    return {
        "dtype": best,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": (directory / "model.safetensors").stat().st_size,
        "valid": valid[best],
        "rounding": {dtype: _mean(valid[dtype]) - exact for dtype in HALF},
        "samples": sample_texts(directory, count=3, tokens=120),
    }


def device_name(device: torch.device | str) -> str:
    """The name a reader would know the device by."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")


def _mean(losses: dict[str, dict[str, float]]) -> float:
    return sum(values["loss"] for values in losses.values()) / len(losses)
