"""Passing activations from layer to layer, one layer at a time.

Everything Puzzle needs of a parent (distilling, scoring) needs the input and output of one layer
after another, for all calibration rows. So activations advance through the depth of the model
while only those of a few layers are kept, wherever there is room for them.

Shapes: N rows, B rows of a batch, T tokens, H hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from adaptive.core.run import Ranks
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import Option, block_of
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, Rope
from adaptive.llm_puzzle.stream import StreamedLayers


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
        x_1TH = x_BTH[:1].to(model.device)
        position_ids = torch.arange(x_1TH.shape[1], device=x_1TH.device)[None]
        rope = model.model.rotary_emb(x_1TH, position_ids=position_ids)
        return Positions(rope, model.model.masks(x_1TH, position_ids))

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


Run = Callable[[Positions, PuzzleLayer, torch.Tensor], torch.Tensor]
"""How a layer is computed from the states that enter it."""


@functools.cache
def fused_run() -> Run:
    """``Positions.run`` with its elementwise work fused: one program for all layers of a shape."""
    return torch.compile(Positions.run, dynamic=True)


def worth_fusing(model: PuzzleForCausalLM) -> bool:
    """Whether to compile for a model: half a minute that narrow models, and CPUs, do not earn, and
    that children would take for every shape of theirs."""
    alike = all(block == model.config.blocks[0] for block in model.config.blocks)
    return model.device.type == "cuda" and model.config.hidden_size >= 1024 and alike


@dataclass(frozen=True)
class LayerActivations:
    """What the parent's layer sees and makes of it, for all rows.

    All of them may wait somewhere else; parts of them are on the layer's device.

    Attributes:
        index: of the layer.
        layer: the parent's.
        device: of the layer.
        x_NTH: input of the layer.
        mid_NTH: between its attention and its feed-forward half.
        y_NTH: output of the layer.
        mask_NT: True at real tokens.
    """

    index: int
    layer: PuzzleLayer
    device: torch.device
    x_NTH: torch.Tensor
    mid_NTH: torch.Tensor
    y_NTH: torch.Tensor
    mask_NT: torch.Tensor

    def __len__(self) -> int:
        return len(self.x_NTH)

    def part(self, rows: slice) -> LayerActivations:
        """Some rows in full length, left where they are."""
        return self._view(rows, slice(None))

    def rows(self, index: torch.Tensor, length: int) -> LayerActivations:
        """Some rows, cut to ``length`` tokens, on the layer's device."""
        return self._view(index, slice(length)).here()

    def batches(self, size: int) -> Iterator[LayerActivations]:
        """All rows in order, so many at once, on the layer's device."""
        for start in range(0, len(self), size):
            yield self.part(slice(start, start + size)).here()

    def here(self) -> LayerActivations:
        """The same on the layer's device."""
        states = (self.x_NTH, self.mid_NTH, self.y_NTH, self.mask_NT)
        return self._with(*(state.to(self.device, non_blocking=True) for state in states))

    def _view(self, rows: slice | torch.Tensor, tokens: slice) -> LayerActivations:
        states = (self.x_NTH, self.mid_NTH, self.y_NTH, self.mask_NT)
        return self._with(*(_cut(state, rows, tokens) for state in states))

    def _with(self, *states: torch.Tensor) -> LayerActivations:
        return LayerActivations(self.index, self.layer, self.device, *states)


def _cut(state: torch.Tensor, rows: slice | torch.Tensor, tokens: slice) -> torch.Tensor:
    if isinstance(rows, torch.Tensor):
        rows = rows.to(state.device)
    return state[rows, tokens]


@dataclass(frozen=True)
class Relay:
    """The layers of each of several processes; activations pass from one to the next.

    Attributes:
        ranks: the processes.
        layers: of each, consecutive; processes without any come last.
    """

    ranks: Ranks
    layers: Sequence[range]

    @staticmethod
    def alone(layers: int) -> Relay:
        """One process that has all layers."""
        return Relay(Ranks(), [range(layers)])

    @property
    def own(self) -> range:
        """The layers of this process."""
        return self.layers[self.ranks.rank]

    @property
    def receives(self) -> bool:
        """Whether what enters the first of them comes from another process."""
        return bool(self.own) and self.own[0] > 0

    @property
    def sends(self) -> bool:
        """Whether another process waits for what leaves the last of them."""
        following = self.layers[self.ranks.rank + 1 : self.ranks.rank + 2]
        return any(following)


@torch.no_grad()
def walk(
    model: PuzzleForCausalLM,
    rows: Rows,
    batch: int,
    store: Store | None = None,
    relay: Relay | None = None,
) -> Iterator[LayerActivations]:
    """One forward pass of the parent over all rows, layer by layer.

    Of several processes each goes through its own layers. What the next one needs is computed and
    sent before the first is looked at, so that nobody waits for what others do with theirs.

    Args:
        model: the parent.
        rows: on any device.
        batch: rows computed at once.
        store: where activations wait; None keeps them on the model's device.
        relay: who has which layers; None is one process that has all.
    """
    device = model.device
    relay = relay or Relay.alone(len(model.config.blocks))
    if not relay.own:
        return
    store = store or Store("device", device)
    size = (*rows.ids_NT.shape, model.config.hidden_size)
    mask_NT = rows.mask_NT.to(device if store.place == "device" else "cpu")
    parts = [slice(start, min(start + batch, len(rows))) for start in range(0, len(rows), batch)]
    x_NTH = store.empty(size, model.dtype)
    positions = Positions.of(model, x_NTH)
    # A parent that is read from disk is gone through once, not once for each part.
    whole = isinstance(model.model.layers, StreamedLayers)
    for chunk in [parts] if whole else [[part] for part in parts]:
        for part in chunk:
            if relay.receives:
                shape = x_NTH[part].shape
                x_NTH[part] = relay.ranks.receive(shape, model.dtype, relay.ranks.rank - 1)
            else:
                x_NTH[part] = model.model.embed_tokens(rows.ids_NT[part].to(device))
        if relay.sends:
            passing = store.empty((chunk[-1].stop - chunk[0].start, *size[1:]), model.dtype)
            local = [slice(p.start - chunk[0].start, p.stop - chunk[0].start) for p in chunk]
            for here, part in zip(local, chunk, strict=True):
                passing[here] = x_NTH[part]
            for layer in model.model.layers[relay.own.start : relay.own.stop]:
                for here in local:
                    passing[here] = positions.run(layer, passing[here].to(device))
            for here in local:
                relay.ranks.send(passing[here].to(device), relay.ranks.rank + 1)
    for index in relay.own:
        layer = model.model.layers[index]
        mid_NTH, y_NTH = store.empty(size, model.dtype), store.empty(size, model.dtype)
        for part in parts:
            mid_BTH = positions.attend(layer, x_NTH[part].to(device))
            mid_NTH[part] = mid_BTH
            y_NTH[part] = layer.feed(mid_BTH)
        yield LayerActivations(index, layer, device, x_NTH, mid_NTH, y_NTH, mask_NT)
        x_NTH = y_NTH


@torch.no_grad()
def sweep(
    model: PuzzleForCausalLM,
    first: int,
    states: Iterable[torch.Tensor],
    store: Store,
    positions: Positions,
    run: Run = Positions.run,
) -> Iterator[torch.Tensor]:
    """Last hidden states, normed, of batches of hidden states that enter a layer.

    They pass one at a time, and nothing is kept of them. Of a parent that is read from disk each
    layer is read once for all of them, which wait for it in the store.

    Args:
        model: whose layers they pass.
        first: the layer that they enter.
        states: [B, T, H] each, on the model's device.
        store: where they wait.
        positions: of T tokens or more.
        run: how a layer is computed.
    """
    read_from_disk = isinstance(model.model.layers, StreamedLayers)
    if not read_from_disk:
        for x_BTH in states:
            for layer in model.model.layers[first:]:
                x_BTH = run(positions, layer, x_BTH)
            yield model.model.norm(x_BTH)
        return
    waiting = []
    for x_BTH in states:
        waiting.append(store.empty(x_BTH.shape, x_BTH.dtype))
        waiting[-1].copy_(x_BTH)
    for layer in model.model.layers[first:]:
        for x_BTH in waiting:
            x_BTH.copy_(run(positions, layer, x_BTH.to(model.device)))
    for x_BTH in waiting:
        yield model.model.norm(x_BTH.to(model.device))


@torch.no_grad()
def final_states(model: PuzzleForCausalLM, ids: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Last hidden states, normed, of batches of token ids [B, T], in order, [B, T, H] each."""
    if not isinstance(model.model.layers, StreamedLayers):
        for ids_BT in ids:
            yield model.model(ids_BT, use_cache=False).last_hidden_state
        return
    width = model.config.hidden_size * model.dtype.itemsize
    store = Store.choose("auto", sum(ids_BT.numel() for ids_BT in ids) * width, model.device)
    longest_1TH = model.model.embed_tokens(max(ids, key=lambda ids_BT: ids_BT.shape[1])[:1])
    states = (model.model.embed_tokens(ids_BT) for ids_BT in ids)
    yield from sweep(model, 0, states, store, Positions.of(model, longest_1TH))


def walk_bytes(model: PuzzleForCausalLM, rows: Rows, layers: int = 1) -> float:
    """Bytes of activations that a walk keeps while so many layers are looked at together.

    One group of layers is in use while the next arrives: of each layer the middle and the output,
    and the input of the first.
    """
    tensors = 1 + 4 * layers
    return tensors * rows.ids_NT.numel() * model.config.hidden_size * model.dtype.itemsize


def build(model: PuzzleForCausalLM, option: Option) -> PuzzleLayer:
    """A layer that holds nothing but the option, of the parent's type and place; what its weights
    are is the caller's to say: to draw those of a large model at random takes seconds a layer."""
    with torch.device("meta"):
        layer = PuzzleLayer(model.config, block_of(option).to_config())
    return layer.to(model.dtype).to_empty(device=model.device)
