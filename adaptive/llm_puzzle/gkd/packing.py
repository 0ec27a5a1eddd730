"""Documents laid out in rows without padding between them.

Training rows are documents of very different lengths. Padded to the longest, most of a batch of
short stories is padding; packed, several share a row. They do not see one another: positions start
anew at each document, from which transformers derives a block-diagonal causal mask that every
attention kernel takes (a row with one document needs none).

Shapes: N documents, B rows, T tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adaptive.llm_puzzle.data import Rows


@dataclass(frozen=True)
class Batch:
    """Rows that hold one or more documents.

    Attributes:
        ids_BT: int64 tokens, zeros where there are none.
        positions_BT: int64 positions within the document.
        real_BT: True at real tokens.
        target_BT: int64 next tokens, -1 where the document has no next one.
    """

    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    real_BT: torch.Tensor
    target_BT: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids_BT)

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int(self.real_BT.sum())

    @property
    def predicted(self) -> int:
        """Tokens whose next one is known."""
        return int((self.target_BT >= 0).sum())

    def split(self, rows: int) -> list[Batch]:
        """Batches of so many rows, each cut to its longest row."""
        return [self._cut(slice(start, start + rows)) for start in range(0, len(self), rows)]

    def blank(self) -> Batch:
        """One row of which no token counts: what a rank without work of its own computes."""
        none_BT = torch.zeros_like(self.real_BT[:1])
        target_BT = torch.full_like(self.target_BT[:1], -1)
        return Batch(self.ids_BT[:1], self.positions_BT[:1], none_BT, target_BT)

    def _cut(self, rows: slice) -> Batch:
        used = int(self.real_BT[rows].any(0).nonzero().max()) + 1
        fields = (self.ids_BT, self.positions_BT, self.real_BT, self.target_BT)
        return Batch(*(field[rows, :used] for field in fields))


def pack(rows: Rows, length: int) -> Batch:
    """Lays documents out in as few rows of ``length`` tokens as first-fit decreasing finds.

    Args:
        rows: one document each, none longer than ``length``.
        length: of a row. 0 gives every document a row of its own, in the given order.
    """
    lengths = rows.lengths_N.tolist()
    bins = first_fit(lengths, length) if length else [[n] for n in range(len(rows))]
    width = max(sum(lengths[n] for n in documents) for documents in bins)
    ids_BT = rows.ids_NT.new_zeros(len(bins), width)
    # What is behind the last document continues its positions: no real token ever sees it.
    positions_BT = torch.arange(width, device=ids_BT.device).repeat(len(bins), 1)
    real_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    target_BT = torch.full_like(ids_BT, -1)
    for b, documents in enumerate(bins):
        start = 0
        for n in documents:
            end = start + lengths[n]
            ids_BT[b, start:end] = rows.ids_NT[n, : lengths[n]]
            target_BT[b, start : end - 1] = rows.ids_NT[n, 1 : lengths[n]]
            positions_BT[b, start:] = torch.arange(width - start, device=ids_BT.device)
            real_BT[b, start:end] = True
            start = end
    return Batch(ids_BT, positions_BT, real_BT, target_BT)


def first_fit(lengths: list[int], room: int) -> list[list[int]]:
    """First-fit decreasing: the longest document first, each into the first row with room for it.

    It needs at most 11/9 of the fewest possible rows, plus one (Johnson 1973).

    Returns:
        Indices of documents, row by row.
    """
    assert max(lengths) <= room, "a document is longer than a row"
    bins: list[list[int]] = []
    free: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        b = next((b for b, left in enumerate(free) if left >= lengths[n]), len(bins))
        if b == len(bins):
            bins.append([])
            free.append(room)
        bins[b].append(n)
        free[b] -= lengths[n]
    return bins
