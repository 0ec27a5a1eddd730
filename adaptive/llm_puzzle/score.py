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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from adaptive.core.run import atomic_write_json
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import ScoreConfig
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.walk import LayerActivations, Positions, walk

METRICS = ("kl", "lm_loss", "cosine")


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


def score_library(
    model: PuzzleForCausalLM,
    space: list[LayerSpace],
    library: Library,
    rows: Rows,
    config: ScoreConfig,
    directory: Path,
    track: Callable[[Iterable[LayerActivations], int], Iterable[LayerActivations]] = lambda x, _: x,
    parent: PuzzleForCausalLM | None = None,
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
    """
    # A pass holds at least four variants, so that small row batches do not leave layers idle.
    batch = max(1, config.batch_tokens // (4 * rows.ids_NT.shape[1]))
    final_NTH = None if parent is None else final_states(parent, rows, batch)
    scores = []
    for activations in track(walk(model, rows, batch), len(space)):
        path = directory / f"layer_{activations.index:03d}.json"
        if not path.is_file():
            options = space[activations.index]
            layer = _LayerScorer(model, activations, options, library, parent or model)
            atomic_write_json(path, layer(rows, config, batch, final_NTH).to_json())
        scores.append(LayerScores.from_json(json.loads(path.read_text(encoding="utf-8"))))
    atomic_write_json(directory / "scores.json", [layer.to_json() for layer in scores])
    return scores


@torch.no_grad()
def final_states(model: PuzzleForCausalLM, rows: Rows, batch: int) -> torch.Tensor:
    """Last hidden states of all rows, normed, [N, T, H]."""
    parts = rows.ids_NT.split(batch)
    return torch.cat([model.model(ids, use_cache=False).last_hidden_state for ids in parts])


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
    for part in rows.batches(max(1, batch_tokens // rows.ids_NT.shape[1])):
        finals = (final_states(model, part, len(part)) for model in (parent, child))
        reference = _Reference.of(parent, next(finals), part)
        for name, value in reference.compare(next(finals)).items():
            sums[name] += value
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
    ):
        self.model, self.at, self.options = model, activations, options
        self.own = options.index(BlockOption.from_config(model.config.blocks[activations.index]))
        # The parent's masks, since a child may lack the sliding window that an option has.
        self.positions = Positions.of(parent, activations.x_NTH)
        self.attention = [library.load(parent, activations.index, o) for o in options.attention]
        self.ffn = [library.load(parent, activations.index, o) for o in options.ffn]

    @torch.inference_mode()
    def __call__(
        self, rows: Rows, config: ScoreConfig, batch: int, final_NTH: torch.Tensor | None = None
    ) -> LayerScores:
        """Scores against the model itself, or against the parent's last hidden states."""
        pairs = self._pairs(config.granularity)
        sums = {name: torch.zeros(len(pairs), dtype=torch.float64) for name in METRICS}
        counts = dict.fromkeys(METRICS, 0)
        # A layer that is not searched has no pairs, and nothing to run.
        for index in torch.arange(len(rows)).split(batch) if pairs else ():
            part = self.at.rows(index, int(rows.lengths_N[index].max()))
            part_rows = rows.select(index)
            own_BTH = self._suffix(part.y_NTH)
            final_BTH = own_BTH if final_NTH is None else final_NTH[index, : own_BTH.shape[1]]
            reference = _Reference.of(self.model, final_BTH, part_rows)
            base = {} if final_NTH is None else reference.compare(own_BTH)
            counts = {name: counts[name] + n for name, n in reference.counts.items()}
            chunk = max(1, config.batch_tokens // part.mask_NT.numel())
            for chosen in torch.arange(len(pairs)).split(chunk):
                out_CBTH = self._outputs(part, [pairs[i] for i in chosen])
                final_CBTH = self._suffix(out_CBTH.flatten(0, 1)).unflatten(0, out_CBTH.shape[:2])
                for i, final_BTH in zip(chosen.tolist(), final_CBTH, strict=True):
                    for name, value in reference.compare(final_BTH).items():
                        sums[name][i] += value - base.get(name, 0.0)
        tables = {}
        for name in METRICS:
            table = np.zeros((len(self.attention), len(self.ffn)))
            measured = (sums[name] / counts[name]).numpy()
            for (a, f), value in zip(pairs, measured, strict=True):
                table[a, f] = value
            if config.granularity == "subblock":
                a, f = self.own
                table = table[:, f, None] + table[None, a, :]
            tables[name] = np.where(np.isfinite(table), table, np.nan)
        return LayerScores(
            [option.label for option in self.options.attention],
            [option.label for option in self.options.ffn],
            tables,
        )

    def _pairs(self, granularity: str) -> list[tuple[int, int]]:
        """Pairs of options to measure; the model's own pair scores 0 by definition."""
        every = [(a, f) for a in range(len(self.attention)) for f in range(len(self.ffn))]
        if granularity == "subblock":
            every = [(a, f) for a, f in every if a == self.own[0] or f == self.own[1]]
        return [pair for pair in every if pair != self.own]

    def _outputs(self, part: LayerActivations, pairs: list[tuple[int, int]]) -> torch.Tensor:
        """Outputs of this layer with each pair of options, [C, B, T, H]."""
        chosen = {a for a, _ in pairs}
        mids = {a: self.positions.attend(self.attention[a], part.x_NTH) for a in chosen}
        return torch.stack([self.ffn[f].feed(mids[a]) for a, f in pairs])

    def _suffix(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """Last hidden states, normed, from the output of this layer."""
        for layer in self.model.model.layers[self.at.index + 1 :]:
            x_BTH = self.positions.run(layer, x_BTH)
        return self.model.model.norm(x_BTH)


@dataclass(frozen=True)
class _Reference:
    """The parent's result on a batch of rows, and how others compare with it."""

    head: nn.Linear
    rows: Rows
    final_MH: torch.Tensor
    logprob_MV: torch.Tensor
    target_P: torch.Tensor
    loss: torch.Tensor

    @staticmethod
    def of(model: PuzzleForCausalLM, final_BTH: torch.Tensor, rows: Rows) -> _Reference:
        final_MH = final_BTH[rows.mask_NT]
        logprob_MV = model.lm_head(final_MH).float().log_softmax(-1)
        target_P = rows.ids_NT[:, 1:][rows.predicted_NT[:, :-1]]
        own = logprob_MV[rows.predicted_NT[rows.mask_NT]]
        return _Reference(
            model.lm_head, rows, final_MH, logprob_MV, target_P, _nll(own, target_P).sum()
        )

    @property
    def counts(self) -> dict[str, int]:
        """Tokens that each metric's sum runs over."""
        tokens = len(self.final_MH)
        return {"kl": tokens, "lm_loss": len(self.target_P), "cosine": tokens}

    def compare(self, final_BTH: torch.Tensor) -> dict[str, float]:
        """Sums over tokens of each metric."""
        final_MH = final_BTH[self.rows.mask_NT]
        logprob_MV = self.head(final_MH).float().log_softmax(-1)
        predicted = logprob_MV[self.rows.predicted_NT[self.rows.mask_NT]]
        cosine_M = nn.functional.cosine_similarity(final_MH.float(), self.final_MH.float(), dim=-1)
        return {
            "kl": kl_divergence(self.logprob_MV, logprob_MV).sum().item(),
            "lm_loss": (_nll(predicted, self.target_P).sum() - self.loss).item(),
            "cosine": (1 - cosine_M).sum().item(),
        }


def _nll(logprob_PV: torch.Tensor, target_P: torch.Tensor) -> torch.Tensor:
    return -logprob_PV.gather(-1, target_P[:, None])[:, 0].double()


def kl_divergence(logp_MV: torch.Tensor, logq_MV: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of each token in nats, [M], from log-probabilities."""
    return (logp_MV.exp() * (logp_MV - logq_MV)).sum(-1)


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
