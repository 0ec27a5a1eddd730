"""Quality of a model on rows of text: language-modelling loss and divergence from the parent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.score import kl_divergence


@dataclass(frozen=True)
class Quality:
    """Averages over tokens.

    Attributes:
        loss: next-token cross-entropy in nats a token.
        kl: KL(parent || model) in nats a token; 0 for the parent itself.
        top1: share of tokens at which model and parent would choose the same next token.
        tokens: predicted tokens.
    """

    loss: float
    kl: float
    top1: float
    tokens: int


@torch.inference_mode()
def evaluate(
    model: PuzzleForCausalLM,
    rows: Rows,
    batch_size: int,
    parent: PuzzleForCausalLM | None = None,
) -> Quality:
    """Evaluates a model on rows of text.

    Args:
        model: in evaluation mode.
        rows: on the model's device.
        batch_size: rows at once.
        parent: to compare with; ``None`` evaluates the parent itself.
    """
    loss = kl = agree = 0.0
    tokens = 0
    for batch in rows.batches(batch_size):
        where_BT = batch.predicted_NT
        target_M = batch.ids_NT[:, 1:][where_BT[:, :-1]]
        logits_MV = _logits(model, batch, where_BT)
        loss += nn.functional.cross_entropy(logits_MV, target_M, reduction="sum").item()
        tokens += len(target_M)
        if parent is None:
            continue
        theirs_MV = _logits(parent, batch, where_BT)
        kl += kl_divergence(theirs_MV.log_softmax(-1), logits_MV.log_softmax(-1)).sum().item()
        agree += (theirs_MV.argmax(-1) == logits_MV.argmax(-1)).sum().item()
    return Quality(loss / tokens, kl / tokens, agree / tokens if parent else 1.0, tokens)


def _logits(model: PuzzleForCausalLM, batch: Rows, where_BT: torch.Tensor) -> torch.Tensor:
    hidden_BTH = model.model(batch.ids_NT, use_cache=False).last_hidden_state
    return model.lm_head(hidden_BTH[where_BT]).float()
