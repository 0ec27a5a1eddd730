"""Engines: decoders put together from shapes, run as an inference server runs them.

Every block has its own static KV cache; on a GPU prefill and decode steps are CUDA graphs, and a
generation is nothing but their replays. Weights are random until they are loaded: time does not
depend on them.

Shapes: B sequences, T prompt tokens, O generated tokens, M tokens of a step, V vocabulary, D head
size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from adaptive.core.cost.block import Block
from adaptive.core.cost.rows import CONTEXT_STRIDE
from adaptive.core.cost.shapes import FFN, Attention, Embedding, Head, Linear, NoOp
from adaptive.core.cost.stack import Stack
from adaptive.core.engine import ops
from adaptive.core.engine.modules import TORCH_DTYPES, KVCache, Step, Stream, build
from adaptive.core.errors import UserError

Caches = list[KVCache | None]


class Rope:
    """Cosines and sines of rotary embeddings, [C, D], for the positions of an engine.

    Args:
        frequencies: inverse frequencies, [D / 2]; None makes those of ``theta``.
        scaling: factor on cosines and sines (YaRN's attention factor).
    """

    def __init__(
        self,
        head_dim: int,
        frequencies: torch.Tensor | None = None,
        scaling: float = 1.0,
        theta: float = 500_000.0,
    ):
        if frequencies is None:
            frequencies = theta ** -(torch.arange(0, head_dim, 2).double() / head_dim)
        self.frequencies, self.scaling = frequencies.float().cpu(), scaling

    def table(
        self, positions: int, dtype: torch.dtype, device: str | torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of the first ``positions`` positions."""
        angles = torch.arange(positions).float()[:, None] * self.frequencies
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return cos.to(device, dtype), sin.to(device, dtype)


class Engine(nn.Module):
    """A decoder-only language model of any mixture of blocks.

    Args:
        stack: embedding, sub-blocks and head, as ``core.cost.decoder`` makes it.
        dtype: "fp32", "bf16", "fp16", or "fp8" (e4m3 matrices and activations between bf16).
        device: of torch.
        rope: rotary embedding; by default Llama 3's.

    Raises:
        UserError: the stack is no decoder, or nothing here runs the dtype.
    """

    def __init__(
        self,
        stack: Stack,
        dtype: str = "bf16",
        device: str | torch.device = "cuda",
        rope: Rope | None = None,
    ):
        super().__init__()
        first, middle, last = _decoder_parts(stack)
        self.stack, self.dtype, self.device = stack, dtype, torch.device(device)
        self.shapes: list[Block] = [b for b in middle if not isinstance(b, NoOp)]
        self.embedding: Any = build(first, dtype, device)
        self.blocks = nn.ModuleList([build(block, dtype, device) for block in self.shapes])
        self.head: Any = build(last, dtype, device)
        if last.tied:
            self.head.matrix.weight = self.embedding.weight
        self.attending = [b for b in self.shapes if isinstance(b, Attention)]
        self.rope = rope or Rope(self.attending[0].head_dim if self.attending else 2)
        self._tables = [self.rope.table(0, TORCH_DTYPES[dtype], device)]

    def make_caches(self, batch: int, capacity: int) -> Caches:
        """KV caches for ``capacity`` tokens of ``batch`` sequences, one for each block."""
        return [
            KVCache.empty(block, batch, capacity, self.dtype, self.device)
            if isinstance(block, Attention)
            else None
            for block in self.shapes
        ]

    def prefill_step(self, batch: int, length: int) -> Step:
        """The step that reads prompts of ``length`` tokens."""
        positions_T = torch.arange(length, device=self.device)
        cos, sin = self._rotary(length)
        return Step(batch, cos[:length], sin[:length], positions_T, decode=False)

    def decode_step(self, batch: int, position: int) -> Step:
        """The step that reads the token at ``position`` and sees exactly those before it."""
        positions_T = torch.tensor([position], device=self.device)
        cos, sin = self._rotary(position + 1)
        cos, sin = cos[position : position + 1], sin[position : position + 1]
        return Step(batch, cos, sin, positions_T, decode=True, attended=position + 1)

    def masked_step(self, batch: int, positions_1: torch.Tensor, attended: int) -> Step:
        """A decode step whose position is known on the device alone, for capture in a graph.

        Args:
            batch: sequences.
            positions_1: the position, [1].
            attended: tokens of the cache that enter attention; those after the position, at most
                ``CONTEXT_STRIDE - 1`` of them, are masked.
        """
        cos, sin, mask = ops.place(*self._rotary(attended), positions_1, attended)
        return Step(batch, cos, sin, positions_1, True, attended, mask, CONTEXT_STRIDE - 1)

    @torch.no_grad()
    def forward(
        self, ids_M: torch.Tensor, step: Step, caches: Caches | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step.

        Args:
            ids_M: tokens, sequence by sequence.
            step: what the tokens attend to.
            caches: filled by a prefill (None keeps nothing), read and filled by a decode step.

        Returns:
            Logits [B, V] of the last positions and the likeliest next tokens [B]. With a head of
            every position [M, V] and [M].
        """
        stream: Stream = (self.embedding(ids_M, step.positions_T), None)
        for block, cache in zip(self.blocks, caches or [None] * len(self.shapes), strict=True):
            stream = block(stream, step, cache)
        return self.head(stream, step.batch)

    def _rotary(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        room = len(self._tables[-1][0])
        if room < positions:
            room = max(2 * room, -(-positions // 1024) * 1024)
            # Smaller tables stay: graphs captured before read them wherever they are.
            self._tables.append(self.rope.table(room, TORCH_DTYPES[self.dtype], self.device))
        return self._tables[-1]

    def prefill(
        self, ids_BT: torch.Tensor, caches: Caches | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads prompts; see :meth:`forward`."""
        return self(ids_BT.reshape(-1), self.prefill_step(*ids_BT.shape), caches)

    def decode(
        self, ids_B: torch.Tensor, position: int, caches: Caches
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads one more token a sequence, the one at ``position``; see :meth:`forward`."""
        return self(ids_B, self.decode_step(len(ids_B), position), caches)


def _decoder_parts(stack: Stack) -> tuple[Embedding, list[Block], Head]:
    """What an engine is made of; UserError where it could not run it."""
    ends = stack.blocks[:1] + stack.blocks[1:][-1:]
    if len(ends) < 2 or not isinstance(ends[0], Embedding) or not isinstance(ends[1], Head):
        raise UserError("an engine runs decoders: embedding first, head last")
    middle = list(stack.blocks[1:-1])
    for block in middle:
        if not isinstance(block, FFN | Linear | NoOp | Attention) or (
            isinstance(block, Attention) and not block.cached
        ):
            raise UserError(
                "an engine runs decoders, of attention with a KV cache, FFNs, linear blocks and "
                f"no-ops: not {block.key()}"
            )
    sizes = {block.head_dim for block in middle if isinstance(block, Attention)}
    if len(sizes) > 1:
        raise UserError(
            f"an engine has one rotary embedding: choose one head_dim out of {sorted(sizes)}"
        )
    return ends[0], middle, ends[1]


class Generation:
    """Greedy generation of a fixed size, captured before it runs.

    Args:
        engine: runs it.
        batch: sequences.
        prompt: tokens read by each.
        output: tokens generated by each, at least one.
    """

    def __init__(self, engine: Engine, batch: int, prompt: int, output: int):
        self.engine, self.batch, self.prompt, self.output = engine, batch, prompt, output
        device = engine.device
        graphs = device.type == "cuda"
        stride = CONTEXT_STRIDE if graphs else 1
        capacity = -(-(prompt + output) // stride) * stride
        self.caches = engine.make_caches(batch, capacity)
        self.ids_BT = torch.zeros(batch, prompt, dtype=torch.int64, device=device)
        self.next_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self.out_OB = torch.zeros(output, batch, dtype=torch.int64, device=device)
        self._pool: object = None
        self._prefill: Callable[[], object] = self._read
        self._steps: dict[int, Callable[[], object]] = {}
        if graphs:
            with torch.cuda.device(device):
                self._capture()

    def _capture(self) -> None:
        """Captures the prefill, and a decode step for every stride of the context."""
        self._pool = torch.cuda.graph_pool_handle()
        self._prefill = capture(self._read, self._pool)
        for position in range(self.prompt, self.prompt + self.output - 1):
            attended = self._attended(position)
            if attended not in self._steps:
                self._steps[attended] = capture(
                    lambda n=attended: self._one(n),
                    self._pool,
                    reset=lambda p=position: self.position_1.fill_(p),
                )

    def run(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Generated tokens, [B, O]; on a GPU the work may still be under way."""
        assert ids_BT.shape == self.ids_BT.shape, "a generation has a fixed size"
        self.ids_BT.copy_(ids_BT)
        self._prefill()
        self.position_1.fill_(self.prompt)
        for position in range(self.prompt, self.prompt + self.output - 1):
            if self._pool is None:
                self._one_exact(position)
            else:
                self._steps[self._attended(position)]()
        return self.out_OB.t().clone()  # the next run writes into the buffer

    def _attended(self, position: int) -> int:
        return (position // CONTEXT_STRIDE + 1) * CONTEXT_STRIDE

    @torch.no_grad()
    def _read(self) -> None:
        self._put(self.engine.prefill(self.ids_BT, self.caches)[1], 0)

    @torch.no_grad()
    def _one(self, attended: int) -> None:
        step = self.engine.masked_step(self.batch, self.position_1, attended)
        ids_B = self.engine(self.next_B, step, self.caches)[1]
        self.next_B.copy_(ids_B)
        self.position_1 += 1
        self.out_OB.index_copy_(0, self.position_1 - self.prompt, ids_B[None])

    @torch.no_grad()
    def _one_exact(self, position: int) -> None:
        ids_B = self.engine.decode(self.next_B, position, self.caches)[1]
        self._put(ids_B, position - self.prompt + 1)

    def _put(self, ids_B: torch.Tensor, index: int) -> None:
        self.next_B.copy_(ids_B)
        self.out_OB[index].copy_(ids_B)


def capture(
    call: Callable[[], object],
    pool: object,
    warmup: int = 2,
    reset: Callable[[], object] = lambda: None,
) -> Callable[[], object]:
    """The replay of a CUDA graph of ``call``.

    Capture forbids lazy initialisation (cuBLAS workspaces, autotuning), hence the calls on a side
    stream before it, as the documentation of CUDA graphs in torch asks for.

    Args:
        call: what to capture; must not wait for the device.
        pool: of memory, shared by graphs that never run at once.
        warmup: calls before the captured one.
        reset: undoes, before each warm-up call, what a call leaves behind.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmup):
            reset()
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):  # pyrefly: ignore[bad-argument-type]
        call()
    return graph.replay
