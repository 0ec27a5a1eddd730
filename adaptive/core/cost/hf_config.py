"""Shapes of one's own models: any Llama, Mistral or Qwen by its ``config.json``; no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.cost.models import DecoderShape
from adaptive.core.errors import UserError

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


def decoder_from_config(config: str | os.PathLike[str] | Mapping[str, Any]) -> DecoderShape:
    """The shape that a Hugging Face ``config.json`` describes, read as plain JSON.

    Fields that a file leaves out have the defaults of transformers 5.

    Args:
        config: a file, a directory with a ``config.json``, or the file's content.

    Raises:
        UserError: it cannot be read, is of another architecture than Llama, Mistral, Qwen2 or
            Qwen3, or lacks or contradicts a number.
    """
    if isinstance(config, Mapping):
        return _Reader("config", config).shape()
    path = Path(config)
    path = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: give a model's config.json")
    return _Reader(str(path), content).shape()


@dataclass(frozen=True)
class _Reader:
    """A configuration and the name under which messages speak of it."""

    name: str
    config: Mapping[str, Any]

    def number(self, field: str, default: int | None = None) -> int:
        value = self.config.get(field)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problem = "is missing" if value is None else f"is {value!r}"
            raise UserError(f"{self.name}: {field} {problem}, give it a whole number >= 1")
        return value

    def shape(self) -> DecoderShape:
        kind = self.config.get("model_type")
        if kind not in ARCHITECTURES:
            raise UserError(
                f"{self.name}: model_type {kind!r} is not known here, "
                f"choose one of {', '.join(ARCHITECTURES)}"
            )
        hidden, heads = self.number("hidden_size"), self.number("num_attention_heads")
        layers = self.number("num_hidden_layers")
        head_dim = 128 if kind == "qwen3" else None
        if head_dim is None and self.config.get("head_dim") is None:
            if hidden % heads:
                raise UserError(
                    f"{self.name}: num_attention_heads={heads} does not divide "
                    f"hidden_size={hidden}, give head_dim"
                )
            head_dim = hidden // heads
        defaults = {"llama": heads, "mistral": 8, "qwen2": 32, "qwen3": 32}
        kv_heads = self.number("num_key_value_heads", defaults[kind])
        if heads % kv_heads:
            raise UserError(
                f"{self.name}: num_key_value_heads={kv_heads} must divide "
                f"num_attention_heads={heads}"
            )
        biased = bool(self.config.get("attention_bias")) and kind in ("llama", "qwen3")
        return DecoderShape(
            hidden,
            heads,
            self.number("head_dim", head_dim),
            self.number("vocab_size"),
            (kv_heads,) * layers,
            (self.number("intermediate_size"),) * layers,
            bias=kind == "qwen2" or biased,
            out_bias=biased,
            qk_norm=kind == "qwen3",
            mlp_bias=kind == "llama" and bool(self.config.get("mlp_bias")),
            tied=bool(self.config.get("tie_word_embeddings")),
            windows=self.windows(kind, layers),
        )

    def windows(self, kind: str, layers: int) -> tuple[int, ...]:
        """Sliding windows by layer; Qwen slides only where it says so, Mistral everywhere."""
        if kind == "llama" or (kind != "mistral" and not self.config.get("use_sliding_window")):
            return ()
        if "sliding_window" in self.config and self.config["sliding_window"] is None:
            return ()
        window = self.number("sliding_window", 4096)
        if kind == "mistral":
            return (window,) * layers
        types = self.config.get("layer_types")
        if types is None:
            first = self.config.get("max_window_layers", 28)
            types = ["sliding_attention" if i >= first else "" for i in range(layers)]
        if len(types) != layers:
            raise UserError(
                f"{self.name}: layer_types names {len(types)} layers, num_hidden_layers {layers}"
            )
        return tuple(window if t == "sliding_attention" else 0 for t in types)
