"""Loss by position in the row: does a child that was distilled on short rows read long ones?

Puzzle's child of 70B, distilled on rows of at most 8K tokens, kept 88 % of its parent's RULER score
at 32K and 15 % at 64K, which no average over short rows shows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate.quality import perplexity, token_scores
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM

FIRST = 16  # positions before it share a bucket: too few tokens for an average


@dataclass(frozen=True)
class Bucket:
    """Averages over the tokens at some positions.

    Attributes:
        start, stop: positions, ``stop`` not included; a power of two each.
        tokens: predicted tokens there.
        loss, parent_loss: next-token loss of model and parent in nats a token.
        kl: KL(parent || model) in nats a token.
    """

    start: int
    stop: int
    tokens: int
    loss: float
    parent_loss: float
    kl: float

    @property
    def label(self) -> str:
        """Such as ``256-511``."""
        return f"{self.start}-{self.stop - 1}"

    @property
    def ppl(self) -> float:
        """The model's perplexity."""
        return perplexity(self.loss)


def by_position(
    model: PuzzleForCausalLM,
    rows: Rows,
    batch_tokens: int,
    parent: PuzzleForCausalLM | None = None,
) -> list[Bucket]:
    """Averages in buckets of positions [1, 16), [16, 32), [32, 64) and so on by powers of two.

    Args:
        model, rows, batch_tokens, parent: as in :func:`~adaptive.llm_puzzle.evaluate.evaluate`.
    """
    sums: dict[int, list[float]] = defaultdict(lambda: [0.0] * 4)
    for scores in token_scores(model, rows, batch_tokens, parent):
        # The power of two at or below each position; frexp is exact where log2 may round.
        start_P = 2 ** (scores.position_P.double().frexp().exponent - 1)
        start_P = start_P.masked_fill(scores.position_P < FIRST, 1)
        for start in start_P.unique().tolist():
            here_P = start_P == start
            columns = (scores.loss_P, scores.parent_loss_P, scores.kl_P)
            found = [int(here_P.sum()), *(c[here_P].double().sum().item() for c in columns)]
            sums[start] = [a + b for a, b in zip(sums[start], found, strict=True)]
    buckets = []
    for start, (tokens, *totals) in sorted(sums.items()):
        stop = FIRST if start == 1 else 2 * start
        buckets.append(Bucket(start, stop, int(tokens), *(total / tokens for total in totals)))
    return buckets
