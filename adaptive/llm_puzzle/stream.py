"""Layers of a parent that does not fit the device, read from its checkpoint when they are used.

Puzzle looks at a parent layer by layer, many times over and always in order. So a few layers on the
device are enough: while one computes, a thread reads the next. A walk over all rows reads each
layer once; scoring reads all layers behind the one that is scored once for all its variants, as far
as there is room for their activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import nn

from adaptive.llm_puzzle.modeling_puzzle import PuzzleLayer, PuzzleModelConfig
from adaptive.llm_puzzle.weights import Checkpoint

LEAST = 3
"""Layers that streaming needs room for: the one in use, the next, and one on its way out."""


class StreamedLayers(nn.Module):
    """Stands where a model has the ``ModuleList`` of its layers, and holds some of them.

    Access in order makes a sweep. When there is no room the layer used last but the current one
    goes: of a sweep that begins anew the first layers stay, so only the rest is read again.

    Args:
        config: of the model.
        weights: its checkpoint.
        device, dtype: of the layers.
        room: layers held at once, at least ``LEAST``.
    """

    def __init__(
        self,
        config: PuzzleModelConfig,
        weights: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        room: int,
    ):
        super().__init__()
        self.config, self.weights, self.device, self.dtype = config, weights, device, dtype
        self.room = max(room, LEAST)
        self._held: dict[int, PuzzleLayer] = {}  # in the order of their last use
        self._coming: tuple[int, Future[PuzzleLayer]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="layer")
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        slots = [block["attention"]["kind"] == "gqa" for block in config.blocks]
        self._slots = [sum(slots[:i]) for i in range(len(slots))]
        self._begin = self._last = 0

    def __len__(self) -> int:
        return len(self.config.blocks)

    def __iter__(self) -> Iterator[PuzzleLayer]:
        return (self._layer(i) for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> PuzzleLayer | Iterator[PuzzleLayer]:
        """A layer; of a slice an iterator, which reads each when it comes to it."""
        if isinstance(index, slice):
            return (self._layer(i) for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._layer(index % len(self))

    @property
    def held(self) -> int:
        """Layers on the device, one on its way included."""
        return len(self._held) + (self._coming is not None)

    def shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of all weights of all layers, as the checkpoint has to have them."""
        with torch.device("meta"):
            layers = [PuzzleLayer(self.config, block) for block in self.config.blocks]
        return {
            f"model.layers.{i}.{name}": weight.shape
            for i, layer in enumerate(layers)
            for name, weight in layer.named_parameters()
        }

    def _layer(self, index: int) -> PuzzleLayer:
        layer = self._held.pop(index, None)
        if layer is None:
            layer = self._arrived(index)
            self._make_room(1)
        self._held[index] = layer
        if index != self._last + 1:
            self._begin = index
        self._last = index
        # After the last layer comes the one at which this sweep began, most likely.
        following = index + 1 if index + 1 < len(self) else self._begin
        if following not in self._held and self._coming is None:
            self._make_room(1)
            self._coming = following, self._reader.submit(self._read, following)
        return layer

    def _arrived(self, index: int) -> PuzzleLayer:
        """A layer that is not held: the one on its way, or read now."""
        if self._coming is None or self._coming[0] != index:
            if self._coming is not None:
                self._coming[1].result()  # nobody waits for it; two at once would need more room
            layer = self._read(index)
        else:
            layer = self._coming[1].result()
        self._coming = None
        if self._side is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._side)
            for weight in layer.parameters():
                weight.record_stream(current)  # freed only after what is queued here
        return layer

    def _make_room(self, count: int) -> None:
        """Lets layers go until so many more fit: the latest used, save the current one."""
        while len(self._held) + count > self.room - (self._coming is not None):
            by_use = list(self._held)
            del self._held[by_use[-2]]  # there are two: room is for LEAST

    @torch.inference_mode(False)  # an evaluation may read what a training will look at later
    @torch.no_grad()
    def _read(self, index: int) -> PuzzleLayer:
        with torch.device("meta"):
            layer = PuzzleLayer(self.config, self.config.blocks[index], self._slots[index])
        prefix = f"model.layers.{index}."
        names = [name for name, _ in layer.named_parameters()]
        with torch.cuda.stream(self._side):  # of no effect on a CPU
            state = {n: self._on_device(self.weights[prefix + n]) for n in names}
        layer.load_state_dict(state, assign=True)
        return layer.eval().requires_grad_(False)

    def _on_device(self, weight: torch.Tensor) -> torch.Tensor:
        if self._side is not None:
            # Copies from pageable memory wait for the device's queue, and hold up everybody.
            weight = weight.to(self.dtype).pin_memory()
        return weight.to(self.device, self.dtype, non_blocking=True)
