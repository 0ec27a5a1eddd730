"""A quadtree under a budget of tokens as a choice problem, for one image or a batch.

Groups are the roots, options how often a root and what is below it split, the loss of an option is
the gain that its best subtree leaves behind. So the general solvers answer what the sorts answer,
with a bound; and the sorts' answer becomes an :class:`~adaptive.core.Allocation`.

Shapes: B images, S nodes that may split, R roots of an image, K splits of one root at most.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.core.choice import Allocation, ChoiceProblem
from adaptive.core.solvers.quadtree.geometry import Geometry
from adaptive.core.solvers.quadtree.order import batch_leaves, batch_ranks, path_min

EXACT = 1e-9  # a gap below which an answer is optimal but for rounding


def choice_problem(gain_BS: Float[Tensor, "B S"], geometry: Geometry) -> ChoiceProblem:
    """The problem whose answer says how often each root of each image splits.

    The trees below a root are the best ones of their size, found by (max,+) dynamic programming.

    Args:
        gain_BS: by how much splitting a node lowers the loss, at least 0.
        geometry: of each image.
    """
    gain = gain_BS.detach().double().cpu().numpy()
    best_BRK = np.stack([_best(gain_S, geometry) for gain_S in gain])
    loss_BRK = best_BRK[..., -1:] - best_BRK
    splits = loss_BRK.shape[-1]
    return ChoiceProblem(
        loss_BRK.reshape(-1, splits),
        {"tokens": np.broadcast_to(1.0 + 3.0 * np.arange(splits), (loss_BRK[..., 0].size, splits))},
        groups=[f"image {b} root {r}" for b in range(len(gain)) for r in range(geometry.roots)],
        options=[f"{1 + 3 * k} tokens" for k in range(splits)],
    )


def allocate(
    gain_BS: Float[Tensor, "B S"], geometry: Geometry, total_tokens: int, floor: int | None = None
) -> Allocation:
    """Best-first quadtrees under one budget as an answer to the choice problem.

    Its loss is that of the trees themselves. The bound is the Lagrangian one at the best of the
    prices around the last split, so it holds for trees found in any way.

    Args:
        gain_BS: as for :func:`choice_problem`; one image has a budget of its own.
        geometry: of each image.
        total_tokens: of all images together.
        floor: as for :func:`~adaptive.core.solvers.quadtree.batch_leaves`.

    Raises:
        UserError: a budget that cannot be spent.
    """
    begun = time.perf_counter()
    leaves = batch_leaves(gain_BS, geometry, total_tokens, floor)
    # A root was split as often as its leaves say.
    images = gain_BS.shape[0]
    root_T = torch.from_numpy(geometry.roots_above)[leaves.node_T.cpu()]
    place_T = leaves.image_T.cpu() * geometry.roots + root_T
    count_G = torch.bincount(place_T, minlength=images * geometry.roots)
    choice = (count_G.numpy() - 1) // 3
    rank_BS = batch_ranks(gain_BS, geometry, floor)
    splits = (total_tokens - images * geometry.roots) // 3
    loss = float(gain_BS.detach().double()[rank_BS >= splits].sum())
    problem = choice_problem(gain_BS, geometry)
    around_BS = (rank_BS >= splits - 1) & (rank_BS <= splits)
    prices = (path_min(gain_BS, geometry)[around_BS].double() / 3).tolist()
    bound, price = max((_bound(problem, total_tokens, p), p) for p in (0.0, *prices) if p >= 0)
    gap = (loss - bound) / max(abs(loss), EXACT * float(problem.loss.max(1).sum()), 1e-300)
    return Allocation(
        choice=choice,
        loss=loss,
        cost=problem.total(choice),
        bound=bound,
        gap=gap,
        price={"tokens": price},
        status="optimal" if gap <= EXACT else "heuristic",
        seconds=time.perf_counter() - begun,
        solver="quadtree",
        groups=problem.groups,
        labels_G=tuple(labels[k] for labels, k in zip(problem.options, choice, strict=True)),
    )


def _best(gain_S: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The largest gain of the trees below each root that split 0, 1, ... times, [R, K]."""
    below: list[np.ndarray] = []  # tables of the level underneath, [nodes, splits]
    for level in reversed(range(len(geometry.sides) - 1)):
        first, last = geometry.offsets[level], geometry.offsets[level + 1]
        own_P = gain_S[first:last]
        if not below:
            below = [np.stack([np.zeros_like(own_P), own_P], -1)]
            continue
        rows, cols = geometry.shapes[level]
        quads = below[0].reshape(rows, 2, cols, 2, -1).swapaxes(1, 2).reshape(last - first, 4, -1)
        joined = quads[:, 0]
        for child in range(1, 4):
            joined = _join(joined, quads[:, child])
        below = [np.concatenate([np.zeros((len(own_P), 1)), own_P[:, None] + joined], 1)]
    return below[0] if below else np.zeros((geometry.roots, 1))


def _join(a_PK: np.ndarray, b_PL: np.ndarray) -> np.ndarray:
    """(max,+) convolution of tables, row by row."""
    sums = np.full((len(a_PK), a_PK.shape[1] + b_PL.shape[1] - 1), -np.inf)
    for k in range(b_PL.shape[1]):
        part = sums[:, k : k + a_PK.shape[1]]
        np.maximum(part, a_PK + b_PL[:, k, None], out=part)
    return sums


def _bound(problem: ChoiceProblem, tokens: int, price: float) -> float:
    """No choice of so many tokens has a smaller loss than this, whatever the price of a token."""
    return float((problem.loss + price * problem.cost["tokens"]).min(1).sum() - price * tokens)
