"""The loss of global distillation (Puzzle, section 5), term by term.

Hidden states of child and parent are compared after every layer, their next-token distributions
at the end. Both models advance layer by layer, so that one layer of the parent is in use at a time
(:func:`hidden_states`), and logits exist for a chunk of tokens only (:mod:`..head`).

Shapes: B rows, T tokens, M real tokens of B rows, H hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.gkd.packing import Batch, attend_by_document
from adaptive.llm_puzzle.head import head_losses
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.settings import GKDConfig


@dataclass(frozen=True)
class GKDLoss:
    """The terms of the loss, each averaged over tokens.

    Attributes:
        cosine: 1 - cos between the hidden states, summed over layers.
        mse: squared error of the hidden states over the parent's energy, token by token so that
            tokens with huge states do not outweigh all others, summed over layers.
        kl: KL(parent || child) of the next-token distributions in nats.
        lm: the child's next-token loss in nats; averaged over tokens that have a next one.
    """

    cosine: torch.Tensor
    mse: torch.Tensor
    kl: torch.Tensor
    lm: torch.Tensor

    def total(self, config: GKDConfig) -> torch.Tensor:
        """The weighted sum that training minimises."""
        weighted = [getattr(config, name) * getattr(self, name) for name in TERMS]
        return torch.stack(weighted).sum()

    @staticmethod
    def average(sums_4: torch.Tensor, tokens: int, predicted: int) -> GKDLoss:
        """From sums over tokens, in the order of :data:`TERMS`."""
        cosine, mse, kl, lm = sums_4.unbind()
        return GKDLoss(cosine / tokens, mse / tokens, kl / tokens, lm / max(1, predicted))


TERMS = tuple(field.name for field in fields(GKDLoss))


class Pair(nn.Module):
    """Child and parent as one module, whose output is the loss.

    Attributes:
        child: trained.
        parent: frozen.
        recompute: layers of the child are computed again in the backward pass, instead of keeping
            what happens inside of them.
    """

    def __init__(
        self, child: PuzzleForCausalLM, parent: PuzzleForCausalLM, recompute: bool = False
    ):
        super().__init__()
        self.child, self.parent, self.recompute = child, parent, recompute

    def forward(self, batch: Batch) -> torch.Tensor:
        """Sums over the batch's tokens of every term, [4] in the order of :data:`TERMS`."""
        distances_2 = torch.zeros(2, device=batch.ids_BT.device)
        ours_BTH = theirs_MH = torch.empty(0)
        parents = hidden_states(self.parent, batch)
        for ours_BTH in hidden_states(self.child, batch, self.recompute):
            with torch.no_grad():
                theirs_MH = batch.real(next(parents))
            # Computed again in the backward pass: else every layer would keep several copies of
            # its states in single precision.
            measure = _fused_distances() if theirs_MH.is_cuda else _distances
            distances_2 = distances_2 + _again(measure, batch.real(ours_BTH), theirs_MH)
        kl, lm = head_losses(
            batch.real(ours_BTH),
            self.child.lm_head.weight,
            theirs_MH,
            self.parent.lm_head.weight,
            batch.target_M,
        )
        return torch.cat([distances_2, torch.stack([kl, lm])])


def hidden_states(
    model: PuzzleForCausalLM, batch: Batch, recompute: bool = False
) -> Iterator[torch.Tensor]:
    """The hidden states after each layer, [B, T, H]; the last ones normed.

    Args:
        model: any decoder.
        batch: of its documents, none sees another.
        recompute: computes each layer again in the backward pass.
    """
    inner = model.model
    x_BTH = inner.embed_tokens(batch.ids_BT)
    rope = inner.rotary_emb(x_BTH, position_ids=batch.positions_BT)
    options: dict[str, Any] = {}
    masks: dict[int | None, Any] = {}
    if batch.groups is None:
        masks = inner.masks(x_BTH, batch.positions_BT)
    else:
        options = {"attend": attend_by_document, "documents": batch.groups}
    for i, layer in enumerate(inner.layers, 1):
        run = partial(_again, layer) if recompute else layer
        x_BTH = run(x_BTH, rope, mask=masks.get(layer.sliding_window), **options)
        yield inner.norm(x_BTH) if i == len(inner.layers) else x_BTH


def _distances(ours_MH: torch.Tensor, theirs_MH: torch.Tensor) -> torch.Tensor:
    """Sums over tokens of 1 - cos and of the normalised squared error, [2]."""
    a_MH, b_MH = ours_MH.float(), theirs_MH.float()
    similarity_M = nn.functional.cosine_similarity(a_MH, b_MH, dim=-1)
    energy_M = b_MH.square().sum(-1).clamp(min=torch.finfo(b_MH.dtype).tiny)
    error_M = (a_MH - b_MH).square().sum(-1) / energy_M
    return torch.stack([(1 - similarity_M).sum(), error_M.sum()])


@functools.cache
def _fused_distances() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``_distances`` as one kernel: two dozen a layer and pass are a quarter of a small step."""
    return torch.compile(_distances, dynamic=True)


def _again(module: Callable[..., torch.Tensor], *arguments: Any, **more: Any) -> torch.Tensor:
    """Calls a function whose inner values are computed again in the backward pass."""
    return cast(torch.Tensor, checkpoint(module, *arguments, use_reentrant=False, **more))


def gkd_loss(
    child: PuzzleForCausalLM, parent: PuzzleForCausalLM, rows: Rows, packing: bool = False
) -> GKDLoss:
    """The terms of the loss on some documents, padded or packed."""
    batch = Batch.packed(rows) if packing else Batch.padded(rows)
    return GKDLoss.average(Pair(child, parent)(batch), batch.tokens, batch.predicted)
