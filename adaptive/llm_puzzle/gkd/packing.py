"""Documents laid out one after the other, with no padding between them.

Training rows are documents of very different lengths. Padded to the longest, a large part of a
batch of short stories is padding; packed, they are one long row, cut up only where a micro-batch
or a process takes a part of it. Everything but attention works on single tokens and does not
notice. Positions start anew at each document, and attention sees documents of like length as one
batch of its own, padded: no token sees another document, little work is spent on padding, and a
GPU is not kept waiting for a call a document.

Batches are made on the CPU, so that no step of a training waits for the step before it to tell how
long its rows are.

Shapes: N documents, B rows, T tokens of a row, M real tokens of B rows, L tokens of the longest of
N documents, Q query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from adaptive.llm_puzzle.data import Rows

ALIKE = 0.75
"""Part of the longest document's tokens that those have at least which attend beside it on a GPU,
where a call is dear; on a CPU padding is, so documents of one length alone share a call."""


@dataclass(frozen=True)
class Alike:
    """Consecutive documents of like length, which attend as one padded batch.

    Attributes:
        count: N of them.
        longest: L tokens of the longest.
        tokens: of all.
        cells: where their tokens stand in the padded batch, its rows one after the other, [tokens];
            ``None``: all are of one length, and nothing is padded.
    """

    count: int
    longest: int
    tokens: int
    cells: torch.Tensor | None

    @staticmethod
    def of(lengths: Sequence[int], alike: float = ALIKE) -> tuple[Alike, ...]:
        """Documents, the longest first, in groups of which the shortest is ``alike`` of the longest
        at least."""
        groups: list[list[int]] = []
        for length in lengths:
            if not groups or length < alike * groups[-1][0]:
                groups.append([])
            groups[-1].append(length)
        found = []
        for group in groups:
            longest, cells = group[0], None
            if group[-1] < longest:
                rows = (i * longest + torch.arange(n) for i, n in enumerate(group))
                cells = torch.cat(list(rows))
            found.append(Alike(len(group), longest, sum(group), cells))
        return tuple(found)

    def to(self, device: torch.device) -> Alike:
        """The same on another device."""
        return replace(self, cells=_to(self.cells, device))

    def pad(self, x_MHD: torch.Tensor) -> torch.Tensor:
        """Tokens of the documents as a padded batch, [N, H, L, D] from H heads."""
        size = (self.count, self.longest)
        if self.cells is not None:
            blank = x_MHD.new_zeros(self.count * self.longest, *x_MHD.shape[1:])
            x_MHD = blank.index_copy(0, self.cells, x_MHD)
        return x_MHD.unflatten(0, size).transpose(1, 2)

    def unpad(self, x_NHLD: torch.Tensor) -> torch.Tensor:
        """The other way round."""
        x_MHD = x_NHLD.transpose(1, 2).flatten(0, 1)
        return x_MHD if self.cells is None else x_MHD.index_select(0, self.cells)


@dataclass(frozen=True)
class Batch:
    """Documents side by side in one row, or padded in a row each.

    Attributes:
        ids_BT: int64 tokens, zeros where there are none.
        positions_BT: int64 positions within the document.
        real_M: where the real tokens stand, rows one after the other; ``None``: all are real.
        target_M: int64 next tokens of the real ones, -1 where the document has no next one.
        tokens: real tokens.
        predicted: tokens whose next one is known.
        groups: documents of the one row by length; ``None`` where each has a row of its own.
    """

    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    real_M: torch.Tensor | None
    target_M: torch.Tensor
    tokens: int
    predicted: int
    groups: tuple[Alike, ...] | None

    @staticmethod
    def padded(rows: Rows, device: torch.device | None = None) -> Batch:
        """Every document in a row of its own, computed on ``device``; ``None``: where they are."""
        device = device or rows.ids_NT.device
        rows = rows.to(torch.device("cpu"))
        real_NT, lengths = rows.mask_NT, rows.lengths_N.tolist()
        target_NT = rows.ids_NT.roll(-1, 1).masked_fill(~rows.predicted_NT, -1)
        batch = Batch(
            rows.ids_NT,
            torch.arange(rows.ids_NT.shape[1])[None],
            None if real_NT.all() else real_NT.flatten().nonzero()[:, 0],
            target_NT[real_NT],
            sum(lengths),
            sum(lengths) - len(lengths),
            None,
        )
        return batch.to(device)

    @staticmethod
    def packed(rows: Rows, device: torch.device | None = None, alike: float | None = None) -> Batch:
        """All documents in one row, the longest first, computed on ``device``.

        ``alike`` is that of :meth:`Alike.of`; None suits the device.
        """
        device = device or rows.ids_NT.device
        if alike is None:
            alike = 1.0 if device.type == "cpu" else ALIKE
        rows = rows.to(torch.device("cpu"))
        rows = rows.select(rows.lengths_N.argsort(stable=True, descending=True))
        apart, real_NT = Batch.padded(rows), rows.mask_NT
        positions_NT = apart.positions_BT.expand_as(real_NT)
        batch = replace(
            apart,
            ids_BT=rows.ids_NT[real_NT][None],
            positions_BT=positions_NT[real_NT][None],
            real_M=None,
            groups=Alike.of(rows.lengths_N.tolist(), alike),
        )
        return batch.to(device)

    def to(self, device: torch.device) -> Batch:
        """The same on another device; a GPU takes it in while the host goes on."""
        groups = self.groups
        return replace(
            self,
            ids_BT=_to(self.ids_BT, device),
            positions_BT=_to(self.positions_BT, device),
            real_M=_to(self.real_M, device),
            target_M=_to(self.target_M, device),
            groups=None if groups is None else tuple(group.to(device) for group in groups),
        )

    def real(self, x_BTH: torch.Tensor) -> torch.Tensor:
        """What belongs to real tokens, [M, H]."""
        x_MH = x_BTH.flatten(0, 1)
        return x_MH if self.real_M is None else x_MH.index_select(0, self.real_M)

    def blank(self) -> Batch:
        """The same tokens, of which none counts: for a process that has no work of its own."""
        none = self.target_M[:0]
        return replace(self, real_M=none, target_M=none, tokens=0, predicted=0)


def _to(tensor: Any, device: torch.device) -> Any:
    if tensor is None or tensor.device == device:
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def micro_batches(
    rows: Rows,
    packing: bool,
    size: int | None,
    parts: int = 1,
    device: torch.device | None = None,
) -> list[Batch]:
    """Lays documents out in batches that are computed one at a time.

    Args:
        rows: one document each.
        packing: documents side by side, or padded to the longest of them.
        size: rows of a batch; packed, so many times the longest document's tokens. ``None``: as
            few batches as there are parts.
        parts: at least so many batches, documents permitting: one for each process.
        device: where they are computed; None: where the rows are.
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
    return [make(rows.select(torch.tensor(documents)), device) for documents in bins]


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
    documents: tuple[Alike, ...],
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document, in the form of transformers' attention functions.

    What pads a document comes after it, where none of its tokens looks.

    Returns:
        The heads' outputs, [B, T, Q, D], and no attention weights.
    """
    assert mask is None
    sizes = [group.tokens for group in documents]
    rows = (x.transpose(1, 2)[0].split(sizes) for x in (q_BQTD, k_BKTD, v_BKTD))
    parts = []
    for group, q_MQD, k_MKD, v_MKD in zip(documents, *rows, strict=True):
        window = None
        if sliding_window is not None and group.longest > sliding_window:
            position = torch.arange(group.longest, device=q_MQD.device)
            back = position[:, None] - position
            window = (back >= 0) & (back < sliding_window)
        o_NQLD = scaled_dot_product_attention(
            group.pad(q_MQD),
            group.pad(k_MKD),
            group.pad(v_MKD),
            attn_mask=window,
            dropout_p=dropout,
            is_causal=window is None,
            scale=scaling,
            enable_gqa=q_MQD.shape[1] != k_MKD.shape[1],
        )
        parts.append(group.unpad(o_NQLD))
    return torch.cat(parts)[None], None
