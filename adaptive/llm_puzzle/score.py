"""Replace-one-block scores (Puzzle, section 4): what one variant costs the parent's quality.

For each option of a layer, that layer alone is replaced and the result compared with the parent.
The layers before it see no change, so their activations are computed once (:func:`walk`); all
variants of the layer then go through the remaining layers as one batch, the parent's own block
among them as the reference, so no logits are ever stored.

The model that is taken apart may also be a child of the parent (iterative Puzzle): a score is then
what replacing one more block changes, KL(parent || changed child) - KL(parent || child), and may be
negative.

Shapes: B rows, T tokens, M real tokens of B rows, C variants in a pass, H hidden size, V
vocabulary.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adaptive.core.run import Ranks, atomic_write_json, shares
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, PuzzleModelConfig
from adaptive.llm_puzzle.reference import METRICS, Reference
from adaptive.llm_puzzle.settings import ScoreConfig
from adaptive.llm_puzzle.shapes import shape
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.stream import StreamedLayers
from adaptive.llm_puzzle.walk import (
    LayerActivations,
    Positions,
    Relay,
    final_states,
    fused_run,
    sweep,
    walk,
    worth_fusing,
)


@dataclass(frozen=True)
class LayerScores:
    """Scores of one layer.

    Attributes:
        attention: labels of its attention options, the parent's first.
        ffn: labels of its FFN options, the parent's first.
        values_AF: for each metric, the score of every pair of options. ``kl``: KL(parent || child)
            in nats a token; ``lm_loss``: child's minus parent's, in nats a token; ``cosine``: one
            minus the cosine of the last hidden states. Around a child, each less the child's own.
            NaN where a variant's output was not finite.
    """

    attention: list[str]
    ffn: list[str]
    values_AF: dict[str, np.ndarray]

    def to_json(self) -> dict:
        values = {
            name: [[None if np.isnan(v) else float(v) for v in row] for row in table]
            for name, table in self.values_AF.items()
        }
        return {"attention": self.attention, "ffn": self.ffn, **values}

    @staticmethod
    def from_json(data: dict) -> LayerScores:
        values = {name: np.array(data[name], dtype=np.float64) for name in METRICS}
        return LayerScores(data["attention"], data["ffn"], values)


def load_scores(directory: Path) -> list[LayerScores]:
    """Reads what :func:`score_library` wrote."""
    layers = json.loads((directory / "scores.json").read_text(encoding="utf-8"))
    return [LayerScores.from_json(layer) for layer in layers]


@dataclass
class ScoreSpeed:
    """What scoring has taken so far: replacements measured, and seconds, loading included."""

    replacements: int = 0
    seconds: float = 0.0

    def add(self, replacements: int, seconds: float) -> None:
        """Counts one more layer."""
        self.replacements += replacements
        self.seconds += seconds


def score_library(
    model: PuzzleForCausalLM,
    space: list[LayerSpace],
    library: Library,
    rows: Rows,
    config: ScoreConfig,
    directory: Path,
    track: Callable[[Iterable[LayerActivations], int], Iterable[LayerActivations]] = lambda x, _: x,
    parent: PuzzleForCausalLM | None = None,
    store: Store | None = None,
    ranks: Ranks | None = None,
    speed: ScoreSpeed | None = None,
    log: Callable[[ScoreSpeed], None] = lambda _: None,
    reduced: Sequence[Sequence[BlockOption]] | None = None,
) -> list[LayerScores]:
    """Scores every option of every layer and writes ``scores.json``.

    Args:
        model: the parent, or a child of it whose every layer is an option of the space.
        space: options of every layer.
        library: holds all their variants.
        rows: what to score on, on the model's device.
        config: which pairs of options to measure and how much at once.
        directory: of the result; a layer that an interrupted attempt finished is not done again.
        track: progress over layers.
        parent: what a child is compared with, and where the parent's own sub-blocks come from;
            needed if ``model`` is a child.
        store: where activations wait; None keeps them on the model's device.
        ranks: the processes that share the layers; all of them get all scores.
        speed: is added to.
        log: called with it after each layer.
        reduced: the pairs of every layer that are scored, each measured as a pair; the others are
            NaN. None: all of them.
    """
    # A pass holds at least four variants, so that small row batches do not leave layers idle.
    batch = max(1, config.batch_tokens // (4 * rows.ids_NT.shape[1]))
    ranks = ranks or Ranks()
    work = scoring_flops(model.config, space, config.granularity, reduced)
    relay = Relay(ranks, shares(work, ranks.world))
    files = [directory / f"layer_{layer:03d}.json" for layer in range(len(space))]
    # All walk, or none does: who waits for activations that nobody sends waits for ever.
    if ranks.sum(float(sum(not files[layer].is_file() for layer in relay.own))):
        final_NTH = None
        if parent is not None:
            final_NTH = torch.cat(list(final_states(parent, rows.ids_NT.split(batch))))
        walking = walk(model, rows, batch, store, relay)
        begun = time.perf_counter()
        for activations in track(walking, len(relay.own)):
            file, options = files[activations.index], space[activations.index]
            if not file.is_file():
                only = None if reduced is None else reduced[activations.index]
                layer = _LayerScorer(
                    model, activations, options, library, parent or model, only, store
                )
                atomic_write_json(file, layer(rows, config, batch, final_NTH).to_json())
                if speed:
                    speed.add(layer.replacements(config), time.perf_counter() - begun)
                    log(speed)
            begun = time.perf_counter()
    ranks.barrier()
    scores = [LayerScores.from_json(json.loads(f.read_text(encoding="utf-8"))) for f in files]
    if ranks.main:
        atomic_write_json(directory / "scores.json", [layer.to_json() for layer in scores])
    return scores


def scoring_flops(
    config: PuzzleModelConfig,
    space: Sequence[LayerSpace],
    granularity: str,
    reduced: Sequence[Sequence[BlockOption]] | None = None,
) -> list[float]:
    """FLOPs a token of scoring each layer: of every replacement all layers from it on, the head
    twice, and once the layer itself for those behind it."""
    counts = [len(pairs_of(options, (0, 0), granularity)) for options in space]
    if reduced is not None:
        counts = [len(blocks) for blocks in reduced]
    head = 2.0 * config.hidden_size * config.vocab_size
    layers = [
        sum(shape(config, half).token_flops() for half in (own.attention, own.ffn))
        for own in (layer.parent for layer in space)
    ]
    return [count * (sum(layers[i:]) + 2 * head) + layers[i] for i, count in enumerate(counts)]


def replacements(space: Sequence[LayerSpace], granularity: str) -> int:
    """How many pairs of options are measured in all layers around the parent."""
    return sum(len(pairs_of(options, (0, 0), granularity)) for options in space)


@torch.inference_mode()
def compare(
    parent: PuzzleForCausalLM, child: PuzzleForCausalLM, rows: Rows, batch_tokens: int
) -> dict[str, float]:
    """The metrics of a whole child against its parent, averaged over tokens as scores are.

    Args:
        parent: the reference.
        child: of the same width and vocabulary.
        rows: on the models' device.
        batch_tokens: tokens at once.
    """
    sums, counts = dict.fromkeys(METRICS, 0.0), dict.fromkeys(METRICS, 0)
    parts = list(rows.token_batches(batch_tokens))
    finals = (final_states(model, [part.ids_NT for part in parts]) for model in (parent, child))
    for part, parent_BTH, child_BTH in zip(parts, *finals, strict=True):
        reference = Reference(parent, parent_BTH, part, compared=child)
        for name, value in reference.compare(child_BTH[None]).items():
            sums[name] += value.item()
            counts[name] += reference.counts[name]
    return {name: sums[name] / counts[name] for name in METRICS}


class _LayerScorer:
    """Scores the options of one layer, whose sub-blocks come from the library or the parent."""

    def __init__(
        self,
        model: PuzzleForCausalLM,
        activations: LayerActivations,
        options: LayerSpace,
        library: Library,
        parent: PuzzleForCausalLM,
        reduced: Sequence[BlockOption] | None = None,
        store: Store | None = None,
    ):
        self.model, self.parent, self.at, self.options = model, parent, activations, options
        self.store = store or Store("device", model.device)
        self.fused = worth_fusing(model)
        self.own = options.index(BlockOption.from_config(model.config.blocks[activations.index]))
        # The parent's masks, since a child may lack the sliding window that an option has.
        self.positions = Positions.of(parent, activations.x_NTH)
        self.reduced = reduced
        self.attention: dict[int, PuzzleLayer] = {}
        self.ffn: dict[int, PuzzleLayer] = {}
        self.whole: dict[tuple[int, int], PuzzleLayer] = {}  # pairs that were trained together
        index = activations.index
        for a, f in self.pairs("block"):
            block = BlockOption(options.attention[a], options.ffn[f])
            if library.holds_together(index, block):
                self.whole[a, f] = library.load_block(parent, index, block)
                continue
            if a not in self.attention:
                self.attention[a] = library.load(parent, index, block.attention)
            if f not in self.ffn:
                self.ffn[f] = library.load(parent, index, block.ffn)

    def pairs(self, granularity: str) -> list[tuple[int, int]]:
        """The pairs of options that are measured."""
        if self.reduced is None:
            return pairs_of(self.options, self.own, granularity)
        found = [self.options.index(block) for block in self.reduced]
        return [pair for pair in found if pair != self.own]

    def replacements(self, config: ScoreConfig) -> int:
        """How many pairs of options are measured."""
        return len(self.pairs(config.granularity))

    @torch.inference_mode()
    def __call__(
        self, rows: Rows, config: ScoreConfig, batch: int, final_NTH: torch.Tensor | None = None
    ) -> LayerScores:
        """Scores against the model itself, or against the parent's last hidden states."""
        pairs = self.pairs(config.granularity)
        options: dict = {"dtype": torch.float64, "device": self.at.device}
        sums = {name: torch.zeros(len(pairs), **options) for name in METRICS}
        counts = dict.fromkeys(METRICS, 0)
        # A layer that is not searched has no pairs, and nothing to run.
        for indices in self._groups(rows, batch, len(pairs)) if pairs else ():
            lengths = [int(rows.lengths_N[index].max()) for index in indices]
            chunks = [
                torch.arange(len(pairs)).split(max(1, config.batch_tokens // (len(i) * length)))
                for i, length in zip(indices, lengths, strict=True)
            ]
            finals = self._finals(indices, lengths, chunks, pairs)
            for index, index_chunks in zip(indices, chunks, strict=True):
                own_BTH = next(finals)
                final_BTH = own_BTH if final_NTH is None else final_NTH[index, : own_BTH.shape[1]]
                reference = Reference(
                    self.parent,
                    final_BTH,
                    rows.select(index),
                    config.top_k,
                    compiled=self.fused,
                    compared=self.model,
                )
                base = {} if final_NTH is None else reference.compare(own_BTH[None])
                counts = {name: counts[name] + n for name, n in reference.counts.items()}
                for chosen in index_chunks:
                    final_CBTH = next(finals).unflatten(0, (len(chosen), len(index)))
                    for name, value_C in reference.compare(final_CBTH).items():
                        sums[name][chosen[0] : chosen[-1] + 1] += value_C - base.get(name, 0.0)
        averages = {name: (sums[name] / counts[name]).cpu().numpy() for name in METRICS}
        return self._tables(pairs, averages, config.granularity)

    def _tables(
        self, pairs: list[tuple[int, int]], values: dict[str, np.ndarray], granularity: str
    ) -> LayerScores:
        """The scores of all pairs of options, from those that were measured."""
        tables = {}
        for name in METRICS:
            size = (len(self.options.attention), len(self.options.ffn))
            table = np.full(size, 0.0 if self.reduced is None else np.nan)
            table[self.own] = 0.0
            for (a, f), value in zip(pairs, values[name], strict=True):
                table[a, f] = value
            if granularity == "subblock" and self.reduced is None:
                a, f = self.own
                table = table[:, f, None] + table[None, a, :]
            tables[name] = np.where(np.isfinite(table), table, np.nan)
        return LayerScores(
            [option.label for option in self.options.attention],
            [option.label for option in self.options.ffn],
            tables,
        )

    def _outputs(self, part: LayerActivations, pairs: list[tuple[int, int]]) -> torch.Tensor:
        """Outputs of this layer with each pair of options, [C, B, T, H]."""
        chosen = {a for a, f in pairs if (a, f) not in self.whole}
        mids = {a: self.positions.attend(self.attention[a], part.x_NTH) for a in chosen}
        return torch.stack(
            [
                self.positions.run(whole, part.x_NTH)
                if (whole := self.whole.get((a, f)))
                else self.ffn[f].feed(mids[a])
                for a, f in pairs
            ]
        )

    def _groups(self, rows: Rows, batch: int, pairs: int) -> list[tuple[torch.Tensor, ...]]:
        """Batches of rows, and those that go through the later layers together: one, or of a parent
        that is read from disk as many as have room with all their pairs."""
        indices = torch.arange(len(rows)).split(batch)
        together = 1
        if isinstance(self.model.model.layers, StreamedLayers):
            nbytes = (1 + pairs) * self.at.y_NTH[:batch].nbytes
            together = max(1, int(self.store.room() / nbytes))
        return [indices[i : i + together] for i in range(0, len(indices), together)]

    def _finals(
        self,
        indices: Sequence[torch.Tensor],
        lengths: Sequence[int],
        chunks: Sequence[Sequence[torch.Tensor]],
        pairs: list[tuple[int, int]],
    ) -> Iterator[torch.Tensor]:
        """Last hidden states, normed: of each batch of rows the model's own [B, T, H], then those
        of every chunk of pairs [C * B, T, H]."""

        def states() -> Iterator[torch.Tensor]:
            for index, length, index_chunks in zip(indices, lengths, chunks, strict=True):
                part = self.at.rows(index, length)
                yield part.y_NTH
                for chosen in index_chunks:
                    yield self._outputs(part, [pairs[i] for i in chosen]).flatten(0, 1)

        run = fused_run() if self.fused else Positions.run
        first = self.at.index + 1
        return sweep(self.model, first, states(), self.store, self.positions, run)


def pairs_of(options: LayerSpace, own: tuple[int, int], granularity: str) -> list[tuple[int, int]]:
    """Pairs of options to measure; the model's own pair scores 0 by definition.

    Args:
        options: of the layer.
        own: the model's pair.
        granularity: as in ``ScoreConfig``.
    """
    every = [(a, f) for a in range(len(options.attention)) for f in range(len(options.ffn))]
    if granularity == "subblock":
        every = [(a, f) for a, f in every if a == own[0] or f == own[1]]
    return [pair for pair in every if pair != own]


@dataclass(frozen=True)
class Inversion:
    """A cheaper option of a ladder that scores better than a dearer one."""

    layer: int
    dearer: str
    cheaper: str
    difference: float  # how much better, in the metric's unit


def inversions(scores: list[LayerScores], metric: str = "kl") -> Iterator[Inversion]:
    """Where a ladder (fewer KV heads, narrower FFNs) is not monotone.

    Distillation noise causes them; they are reported so that nobody reads them as a discovery.
    """
    for layer, score in enumerate(scores):
        table_AF = score.values_AF[metric]
        ladders = ((score.attention, table_AF[:, 0], "kv"), (score.ffn, table_AF[0], "ffn"))
        for labels, values, prefix in ladders:
            rungs = [
                (label, value)
                for label, value in zip(labels, values, strict=True)
                if re.fullmatch(rf"{prefix}\d+", label)
            ]
            for (dearer, high), (cheaper, low) in zip(rungs, rungs[1:], strict=False):
                if low < high:
                    yield Inversion(layer, dearer, cheaper, float(high - low))
