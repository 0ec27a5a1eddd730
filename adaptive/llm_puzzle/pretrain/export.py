"""The last step: round the weights, measure what was lost, write the checkpoint and its numbers."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from adaptive.llm_puzzle.pretrain.model import evaluate, load_parent, sample_texts, save_parent
from adaptive.llm_puzzle.pretrain.tokens import Documents

HALF = ("float16", "bfloat16")
ROUNDING_DOCUMENTS = 64


def export_parent(
    model: LlamaForCausalLM,
    validation: Mapping[str, Documents],
    tokens: Path,
    directory: Path,
    show: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> dict[str, Any]:
    """Writes the checkpoint in the half precision that loses less.

    All losses are computed in float32; only the stored weights are rounded.

    Args:
        model: the trained parent.
        validation: documents by set.
        tokens: directory of ``prepare_tokens``, for the tokenizer.
        directory: where the checkpoint goes.
        show: wraps batches to show progress.

    Returns:
        ``dtype``, ``parameters``, ``bytes`` of the weights, ``valid`` (by set: loss in nats a
        token, bits a byte, tokens), ``rounding`` (by dtype: what it adds to the mean loss over the
        first documents), ``samples`` written from BOS alone.
    """
    device = next(model.parameters()).device
    exact = _mean_loss(model.eval(), validation)
    rounding: dict[str, float] = {}
    for dtype in HALF:
        save_parent(model, tokens, directory, dtype)
        rounding[dtype] = _mean_loss(load_parent(directory, device), validation) - exact
    best = min(HALF, key=rounding.__getitem__)
    save_parent(model, tokens, directory, best)
    rounded = load_parent(directory, device)
    length = min(120, model.config.max_position_embeddings - 1)
    return {
        "dtype": best,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": (directory / "model.safetensors").stat().st_size,
        "valid": {n: evaluate(rounded, docs, show=show) for n, docs in validation.items()},
        "rounding": rounding,
        "samples": sample_texts(directory, count=3, tokens=length),
    }


def device_name(device: torch.device | str) -> str:
    """The name a reader would know the device by."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")


def _mean_loss(model: LlamaForCausalLM, validation: Mapping[str, Documents]) -> float:
    """Over the sets, on as many documents as tell two roundings apart."""
    losses = [evaluate(model, docs, ROUNDING_DOCUMENTS)["loss"] for docs in validation.values()]
    return sum(losses) / len(losses)
