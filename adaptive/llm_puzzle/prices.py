"""From scores and cost models to the one problem of the library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adaptive.core import ChoiceProblem, Workload
from adaptive.core.cost import Analytic, Block, CostModel, MeasuredTable
from adaptive.core.cost.block import activation_dtype
from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.latency import model_key
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.score import LayerScores
from adaptive.llm_puzzle.shapes import shape, stack
from adaptive.llm_puzzle.space import LayerSpace


@dataclass(frozen=True)
class Pricing:
    """Prices every option of a space at one workload.

    Attributes:
        config: of the parent.
        space: options of every layer.
        workload: batch and lengths.
        latency: measured table, or a roofline, whose latencies are lower bounds.
        dtype: of the weights, in the names of ``core.cost``.
    """

    config: PuzzleModelConfig
    space: Sequence[LayerSpace]
    workload: Workload
    latency: CostModel
    dtype: str

    def problem(self, scores: Sequence[LayerScores], metric: str) -> ChoiceProblem:
        """Layers x options with loss, latency, memory (weights and KV cache), parameters, FLOPs.

        Args:
            scores: of every layer, labelled as the space is.
            metric: which score is the loss.

        Raises:
            UserError: the scores belong to another space.
        """
        if len(scores) != len(self.space):
            raise UserError(
                f"there are scores of {len(scores)} layers, but the parent has {len(self.space)}; "
                "take the scores of this parent"
            )
        for i, (options, score) in enumerate(zip(self.space, scores, strict=True)):
            labels = [option.label for option in options.attention]
            if labels != score.attention or [o.label for o in options.ffn] != score.ffn:
                raise UserError(
                    f"scores of layer {i} are of another search space; run the scores stage again"
                )
        return self._problem([score.values_AF[metric].reshape(-1).tolist() for score in scores])

    def unscored(self) -> ChoiceProblem:
        """The problem without losses: good for asking what can be reached, not what is best."""
        return self._problem([[0.0] * len(layer.blocks) for layer in self.space])

    def _problem(self, loss: list[list[float]]) -> ChoiceProblem:
        costs = [[self.block_cost(block) for block in layer.blocks] for layer in self.space]
        return ChoiceProblem(
            loss=loss,
            cost={name: [[c[name] for c in layer] for layer in costs] for name in costs[0][0]},
            fixed=self.fixed(),
            groups=[f"layer {i}" for i in range(len(self.space))],
            options=[[block.label for block in layer.blocks] for layer in self.space],
            workload=self.workload,
        )

    def block_cost(self, block: BlockOption) -> dict[str, float]:
        """Cost of a layer by resource.

        Fewer bits save memory (weights alone, scales not counted; the KV cache keeps the
        activations' dtype). Their latency is that of the run's dtype.
        """
        halves = (block.attention, block.ffn)
        return _add(*(self._cost(shape(self.config, half), half.bits) for half in halves))

    def fixed(self) -> dict[str, float]:
        """Cost of what no choice changes: embedding, final norm and head."""
        whole = stack(self.config)
        return _add(*(self._cost(part) for part in (whole.blocks[0], whole.blocks[-1])))

    @cached_property
    def scale(self) -> float:
        """What the whole parent takes over the sum of its parts, where it was measured.

        The same factor is on every block, so the reference is the measured parent. (The excess as
        a fixed cost, positive or negative, would not shrink with the child.)
        """
        if not isinstance(self.latency, MeasuredTable):
            return 1.0
        try:
            whole = self.latency.latency(model_key(self.config), self.workload, self.dtype)
        except UserError:  # a table without this parent in one piece
            return 1.0
        parts = Counter(stack(self.config).parts())
        latencies = {part: self._latency(part)["latency"] for part in parts}
        return whole.seconds / sum(count * latencies[part] for part, count in parts.items())

    def additivity_error(self) -> float:
        """Sum of the parent's measured parts over the measured whole, minus one."""
        return 1 / self.scale - 1

    def _latency(self, block: Block) -> dict[str, float]:
        return self.latency.cost(block, self.workload, self.dtype)

    def _cost(self, block: Block, bits: str | None = None) -> dict[str, float]:
        counting = Analytic(activation_dtype(self.dtype))
        counts = counting.cost(block, self.workload, bits or self.dtype)
        latency = {name: self.scale * value for name, value in self._latency(block).items()}
        return {**latency, **counts}


def _add(*costs: dict[str, float]) -> dict[str, float]:
    return {name: sum(cost[name] for cost in costs) for name in costs[0]}


def blocks_of(space: Sequence[LayerSpace], choice: np.ndarray) -> list[BlockOption]:
    """The layers of a choice."""
    return [layer.blocks[k] for layer, k in zip(space, choice.tolist(), strict=True)]
