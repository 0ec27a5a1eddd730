"""Documents laid out one after the other, with no padding between them.

Training rows are documents of very different lengths. Padded to the longest, a large part of a
batch of short stories is padding; packed, they are one long row, cut up only where a micro-batch
or a process takes a part of it. Everything but attention works on single tokens and does not
notice. Positions start anew at each document, and attention runs document by document, which is
what variable-length flash attention does: no token sees another document, and no work is spent on
the blocks of a mask that would forbid it.

Shapes: N documents, B rows, T tokens of a row, Q query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from adaptive.llm_puzzle.data import Rows


@dataclass(frozen=True)
class Batch:
    """Documents side by side in one row, or padded in a row each.

    Attributes:
        ids_BT: int64 tokens, zeros where there are none.
        positions_BT: int64 positions within the document.
        real_BT: True at real tokens.
        target_BT: int64 next tokens, -1 where the document has no next one.
        documents: lengths of the documents of the one row; ``None`` where each has its own.
    """

    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    real_BT: torch.Tensor
    target_BT: torch.Tensor
    documents: tuple[int, ...] | None

    @staticmethod
    def padded(rows: Rows) -> Batch:
        """Every document in a row of its own."""
        return Batch(
            rows.ids_NT,
            torch.arange(rows.ids_NT.shape[1], device=rows.ids_NT.device)[None],
            rows.mask_NT,
            rows.ids_NT.roll(-1, 1).masked_fill(~rows.predicted_NT, -1),
            None,
        )

    @staticmethod
    def packed(rows: Rows) -> Batch:
        """All documents in one row."""
        apart, real_NT = Batch.padded(rows), rows.mask_NT
        positions_NT = apart.positions_BT.expand_as(real_NT)
        fields = (rows.ids_NT, positions_NT, real_NT, apart.target_BT)
        lengths = tuple(rows.lengths_N.tolist())
        return Batch(*(field[real_NT][None] for field in fields), documents=lengths)

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return int(self.real_BT.sum())

    @property
    def predicted(self) -> int:
        """Tokens whose next one is known."""
        return int((self.target_BT >= 0).sum())

    def blank(self) -> Batch:
        """The same tokens, of which none counts: for a process that has no work of its own."""
        none_BT, no_target_BT = torch.zeros_like(self.real_BT), torch.full_like(self.target_BT, -1)
        return Batch(self.ids_BT, self.positions_BT, none_BT, no_target_BT, self.documents)


def micro_batches(rows: Rows, packing: bool, size: int | None, parts: int = 1) -> list[Batch]:
    """Lays documents out in batches that are computed one at a time.

    Args:
        rows: one document each.
        packing: documents side by side, or padded to the longest of them.
        size: rows of a batch; packed, so many times the longest document's tokens. ``None``: as
            few batches as there are parts.
        parts: at least so many batches, documents permitting: one for each process.
    """
    lengths = rows.lengths_N.tolist()
    if packing:
        longest = max(lengths)
        room = longest * size if size else sum(lengths)
        # Rounding up leaves each part room for its share.
        bins = first_fit(lengths, max(longest, min(room, -(-sum(lengths) // parts))))
    else:
        step = min(size or len(rows), -(-len(rows) // parts))
        bins = [list(range(n, min(n + step, len(rows)))) for n in range(0, len(rows), step)]
    make = Batch.packed if packing else Batch.padded
    return [make(rows.select(torch.tensor(documents))) for documents in bins]


def first_fit(lengths: list[int], room: int) -> list[list[int]]:
    """First-fit decreasing: the longest document first, each into the first bin with room for it.

    It needs at most 11/9 of the fewest possible bins, plus one (Yue 1991).

    Returns:
        Indices of documents, bin by bin.
    """
    assert max(lengths) <= room, "a document is longer than a bin"
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


def attend_by_document(
    module: Any,
    q_BQTD: torch.Tensor,
    k_BKTD: torch.Tensor,
    v_BKTD: torch.Tensor,
    mask: None,
    *,
    documents: tuple[int, ...],
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document, in the form of transformers' attention functions.

    Returns:
        The heads' outputs, [B, T, Q, D], and no attention weights.
    """
    assert mask is None
    parts = []
    for q, k, v in zip(*(x.split(documents, dim=2) for x in (q_BQTD, k_BKTD, v_BKTD)), strict=True):
        window = None
        if sliding_window is not None and q.shape[2] > sliding_window:
            position = torch.arange(q.shape[2], device=q.device)
            back = position[:, None] - position
            window = (back >= 0) & (back < sliding_window)
        o_BQTD = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=window,
            dropout_p=dropout,
            is_causal=window is None,
            scale=scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        parts.append(o_BQTD)
    return torch.cat(parts, dim=2).transpose(1, 2), None
