"""Running a heterogeneous model the way a server does: fixed KV caches, prefill and decode apart.

Latency is measured with this runner, whole models and single sub-blocks alike, so that the parts
are measured doing what they do in the whole.

Shapes: B sequences, T prompt tokens, C cached tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, Rope


class FixedCache:
    """Keys and values of one attention layer in buffers of fixed size.

    It stands in for a transformers cache in ``PuzzleAttention``: ``update`` writes at ``position``
    and returns what attention may see. Writing does not move ``position``, so one step can be run
    again and again, and captured in a CUDA graph.

    Args:
        window: sliding window of the layer.
    """

    def __init__(self, window: int | None = None):
        self.window = window
        self.position = 0
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def reserve(self, like: torch.Tensor, length: int) -> None:
        """Makes room for ``length`` tokens of heads shaped like ``like``, [B, K, T, D]."""
        shape = (*like.shape[:2], length, like.shape[-1])
        self.keys, self.values = (torch.zeros(shape).to(like) for _ in range(2))

    def update(
        self, k_BKTD: torch.Tensor, v_BKTD: torch.Tensor, slot: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values at ``position`` and returns all that may be attended to."""
        end = self.position + k_BKTD.shape[2]
        if self.keys is None or self.values is None:
            self.reserve(k_BKTD, end)
        elif self.keys.shape[2] < end:
            room = (0, 0, 0, end - self.keys.shape[2])
            self.keys, self.values = (
                nn.functional.pad(self.keys, room),
                nn.functional.pad(self.values, room),
            )
        assert self.keys is not None and self.values is not None
        self.keys[:, :, self.position : end] = k_BKTD
        self.values[:, :, self.position : end] = v_BKTD
        if self.position == 0:  # prefill: the mask limits the window
            return k_BKTD, v_BKTD
        start = max(0, end - self.window) if self.window else 0
        return self.keys[:, :, start:end], self.values[:, :, start:end]


class Runner:
    """Prefill and decode steps of a model with one :class:`FixedCache` a layer.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: PuzzleForCausalLM):
        self.model = model
        self.caches = [FixedCache(layer.sliding_window) for layer in model.model.layers]
        self._masks: dict[int, dict[int | None, Any]] = {}

    @torch.no_grad()
    def prefill(self, ids_BT: torch.Tensor, keep: bool = True) -> torch.Tensor:
        """Logits of the last position, [B, V].

        Args:
            ids_BT: prompts.
            keep: fill the KV caches; workloads without generation need none.
        """
        inner = self.model.model
        x_BTH, rope = embed(self.model, ids_BT, 0)
        masks = self._masks_for(x_BTH)
        for layer, cache in zip(inner.layers, self.caches, strict=True):
            cache.position = 0
            mask = masks.get(layer.sliding_window)
            x_BTH = layer(x_BTH, rope, mask=mask, cache=cache if keep else None)
        return head(self.model, x_BTH)

    def _masks_for(self, x_BTH: torch.Tensor) -> dict[int | None, Any]:
        """Made once a length: looking for packed sequences would break a CUDA graph's capture."""
        length = x_BTH.shape[1]
        if length not in self._masks:
            positions = torch.arange(length, device=x_BTH.device)[None]
            self._masks[length] = self.model.model.masks(x_BTH[:1], positions)
        return self._masks[length]

    @torch.no_grad()
    def decode(self, ids_B1: torch.Tensor, position: int) -> torch.Tensor:
        """Logits after one more token a sequence, [B, V].

        Args:
            ids_B1: the token at ``position``.
            position: tokens in the caches before it.
        """
        x_B1H, rope = embed(self.model, ids_B1, position)
        for layer, cache in zip(self.model.model.layers, self.caches, strict=True):
            cache.position = position
            x_B1H = layer(x_B1H, rope, cache=cache)
        return head(self.model, x_B1H)

    def reserve(self, batch: int, length: int) -> None:
        """Allocates all caches for sequences of ``length`` tokens."""
        config = self.model.config
        for cache, block in zip(self.caches, config.blocks, strict=True):
            if block["attention"]["kind"] == "gqa":
                heads = block["attention"]["num_key_value_heads"]
                like = torch.empty(batch, heads, 0, config.head_dim, dtype=self.model.dtype)
                cache.reserve(like.to(self.model.device), length)


def embed(
    model: PuzzleForCausalLM, ids_BT: torch.Tensor, position: int
) -> tuple[torch.Tensor, Rope]:
    """Hidden states that enter the first layer, [B, T, H], and their rotary embeddings."""
    inner = model.model
    x_BTH = inner.embed_tokens(ids_BT)
    end = position + ids_BT.shape[1]
    positions = torch.arange(position, end, device=ids_BT.device)[None]
    return x_BTH, inner.rotary_emb(x_BTH, position_ids=positions)


def head(model: PuzzleForCausalLM, x_BTH: torch.Tensor) -> torch.Tensor:
    """Logits of the last position, [B, V]."""
    return model.lm_head(model.model.norm(x_BTH[:, -1]))


def layer_call(
    model: PuzzleForCausalLM, layer: PuzzleLayer, phase: str, batch: int, length: int, keep: bool
) -> Callable[[], torch.Tensor]:
    """A call that runs one layer (usually half of one) on random activations.

    Args:
        model: gives sizes, dtype, device and rotary embeddings.
        layer: what to run.
        phase: ``"prefill"`` of ``length`` tokens, or ``"decode"`` with ``length`` tokens cached.
        batch: sequences.
        keep: prefill fills a KV cache.
    """
    prefill = phase == "prefill"
    tokens, position = (length, 0) if prefill else (1, length)
    generator = torch.Generator().manual_seed(0)
    x_BTH = torch.randn(batch, tokens, model.config.hidden_size, generator=generator)
    x_BTH = x_BTH.to(device=model.device, dtype=model.dtype)
    positions = torch.arange(position, position + tokens, device=model.device)[None]
    rope = model.model.rotary_emb(x_BTH, position_ids=positions)
    mask = model.model.masks(x_BTH, positions).get(layer.sliding_window) if prefill else None
    cache = FixedCache(layer.sliding_window) if keep or not prefill else None
    if cache is not None:
        cache.position = position

    def call() -> torch.Tensor:
        return layer(x_BTH, rope, mask=mask, cache=cache)

    return call
