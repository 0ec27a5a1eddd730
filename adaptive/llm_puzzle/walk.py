"""Passing activations from layer to layer, one layer at a time.

Everything Puzzle needs of a parent (distilling, scoring) needs the input and output of one layer
after another, for all calibration rows. So activations advance through the depth of the model
while only two of them, and one layer, are in use at a time.

Shapes: N rows, B rows of a batch, T tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption, half
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, Rope


@dataclass(frozen=True)
class Positions:
    """Rotary embeddings and attention masks for rows of up to T tokens.

    Rows start at position 0 and are padded on the right, so neither depends on the row, and
    shorter rows use the beginning of both.
    """

    rope: Rope
    masks: dict[int | None, torch.Tensor | None]

    @staticmethod
    def of(model: PuzzleForCausalLM, x_BTH: torch.Tensor) -> Positions:
        position_ids = torch.arange(x_BTH.shape[1], device=x_BTH.device)[None]
        rope = model.model.rotary_emb(x_BTH, position_ids=position_ids)
        return Positions(rope, model.model.masks(x_BTH[:1], position_ids))

    def attend(self, layer: PuzzleLayer, x_BTH: torch.Tensor) -> torch.Tensor:
        return layer.attend(x_BTH, self._rope(x_BTH), mask=self._mask(layer, x_BTH))

    def heads(self, layer: PuzzleLayer, x_BTH: torch.Tensor) -> torch.Tensor:
        """What enters the output projection of the layer's attention, [B, T, N*D]."""
        normed = layer.input_layernorm(x_BTH)
        return layer.self_attn.heads(normed, self._rope(x_BTH), mask=self._mask(layer, x_BTH))

    def run(self, layer: PuzzleLayer, x_BTH: torch.Tensor) -> torch.Tensor:
        return layer.feed(self.attend(layer, x_BTH))

    def _rope(self, x_BTH: torch.Tensor) -> Rope:
        cos, sin = self.rope
        return cos[:, : x_BTH.shape[1]], sin[:, : x_BTH.shape[1]]

    def _mask(self, layer: PuzzleLayer, x_BTH: torch.Tensor) -> torch.Tensor | None:
        mask = self.masks.get(layer.sliding_window)
        if mask is None:
            return None
        length = x_BTH.shape[1]
        return mask[..., :length, :length].expand(len(x_BTH), -1, -1, -1)


@dataclass(frozen=True)
class LayerActivations:
    """What the parent's layer sees and makes of it, for all rows.

    Attributes:
        index: of the layer.
        layer: the parent's.
        x_NTH: input of the layer.
        mid_NTH: between its attention and its feed-forward half.
        y_NTH: output of the layer.
        mask_NT: True at real tokens.
    """

    index: int
    layer: PuzzleLayer
    x_NTH: torch.Tensor
    mid_NTH: torch.Tensor
    y_NTH: torch.Tensor
    mask_NT: torch.Tensor

    def part(self, rows: slice) -> LayerActivations:
        """Some rows in full length."""
        return self._view(rows, slice(None))

    def rows(self, index: torch.Tensor, length: int) -> LayerActivations:
        """Some rows, cut to ``length`` tokens."""
        return self._view(index, slice(length))

    def _view(self, rows: slice | torch.Tensor, tokens: slice) -> LayerActivations:
        states = (self.x_NTH, self.mid_NTH, self.y_NTH, self.mask_NT)
        return LayerActivations(self.index, self.layer, *(s[rows, tokens] for s in states))


@torch.no_grad()
def walk(model: PuzzleForCausalLM, rows: Rows, batch_size: int) -> Iterator[LayerActivations]:
    """One forward pass of the parent over all rows, layer by layer.

    Args:
        model: the parent.
        rows: on the model's device.
        batch_size: rows computed at once.
    """
    x_NTH = model.model.embed_tokens(rows.ids_NT)
    positions = Positions.of(model, x_NTH)
    for index, layer in enumerate(model.model.layers):
        mid_NTH = torch.cat([positions.attend(layer, x) for x in x_NTH.split(batch_size)])
        y_NTH = torch.cat([layer.feed(mid) for mid in mid_NTH.split(batch_size)])
        yield LayerActivations(index, layer, x_NTH, mid_NTH, y_NTH, rows.mask_NT)
        x_NTH = y_NTH


def build(model: PuzzleForCausalLM, option: AttentionOption | FFNOption) -> PuzzleLayer:
    """A layer that holds nothing but the option, with untrained weights of the parent's type."""
    layer = PuzzleLayer(model.config, half(option).to_config())
    return layer.to(device=model.device, dtype=model.dtype)
