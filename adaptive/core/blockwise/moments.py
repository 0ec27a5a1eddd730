"""Closed-form fits of a narrower block, and which of its channels are worth keeping.

A sub-block ends in a matrix. Of a narrower one, whose features are some of the parent's, the best
last matrix is ridge regression of the parent's output on the features that are kept,
``argmin_W ||F W - Y||^2 + lambda ||W||^2``; every width shares one Gram matrix.

Shapes: M tokens, F features, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Second moments of features and targets, all that ridge regression needs.

    Attributes:
        gram_FF: ``F^T F``, float64.
        cross_FH: ``F^T Y``, float64.
        mean_abs_F: mean magnitude of every feature.
    """

    gram_FF: Tensor
    cross_FH: Tensor
    mean_abs_F: Tensor

    @staticmethod
    def of(pairs: Iterable[tuple[Tensor, Tensor]]) -> Moments:
        """Accumulates over batches of (features [M, F], targets [M, H])."""
        sums = MomentSums()
        for f_MF, y_MH in pairs:
            sums.add(f_MF, y_MH)
        return sums.moments()

    def solve(self, ridge: float, keep: Tensor | None = None) -> Tensor:
        """The ridge solution as a weight of ``nn.Linear``, [H, F].

        Args:
            ridge: lambda in units of the mean feature variance.
            keep: indices of the features to use; all when left out.
        """
        gram, cross = self.gram_FF, self.cross_FH
        if keep is not None:
            gram, cross = gram[keep][:, keep], cross[keep]
        strength = ridge * gram.diagonal().mean().clamp_min(1e-30)  # dead features
        eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.linalg.solve(gram + strength * eye, cross).T


class MomentSums:
    """Moments as batches come in, where many blocks are looked at in one pass."""

    def __init__(self) -> None:
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None
        self._count = 0

    def add(self, f_MF: Float[Tensor, "M F"], y_MH: Float[Tensor, "M H"]) -> None:
        """One more batch."""
        f_MF, y_MH = f_MF.float(), y_MH.float()
        gram, cross = (f_MF.T @ f_MF).double(), (f_MF.T @ y_MH).double()
        parts = gram, cross, f_MF.abs().sum(0).double()
        old = self._sums
        self._sums = parts if old is None else (
            old[0] + parts[0], old[1] + parts[1], old[2] + parts[2]
        )  # fmt: skip
        self._count += len(f_MF)

    def moments(self) -> Moments:
        """Of all batches so far, of which there is one at least."""
        assert self._sums is not None
        gram, cross, total = self._sums
        return Moments(gram, cross, total / self._count)


def contribution(
    mean_abs_F: Float[Tensor, " F"], weight_HF: Float[Tensor, "H F"]
) -> Float[Tensor, " F"]:
    """What each channel gives to a sub-block's output: ``mean |f_i| * ||W[:, i]||``.

    Args:
        mean_abs_F: of what enters the last matrix.
        weight_HF: the last matrix.
    """
    return mean_abs_F * weight_HF.to(mean_abs_F.dtype).norm(dim=0)


def most(value_F: Float[Tensor, " F"], count: int) -> Int[Tensor, " count"]:
    """Indices of the largest values, in ascending order."""
    return value_F.topk(count).indices.sort().values
