"""Quality of a model on rows of text: language-modelling loss and divergence from the parent.

Shapes: B rows, T tokens, P predicted tokens of B rows, C tokens of a chunk, H hidden size, V
vocabulary, k choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.head import kl_divergence, log_probabilities, spans
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.walk import final_states

CHOICES = (1, 5, 10)  # k of the agreement


@dataclass(frozen=True)
class Quality:
    """Averages over tokens.

    Attributes:
        loss: next-token cross-entropy in nats a token.
        kl: KL(parent || model) in nats a token; 0 for the parent itself.
        top1, top5, top10: share of tokens at which the model's most probable next token is among
            the parent's k most probable ones; 1 for the parent itself.
        tokens: predicted tokens.
    """

    loss: float
    kl: float
    top1: float
    top5: float
    top10: float
    tokens: int

    @property
    def ppl(self) -> float:
        """Perplexity."""
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """``exp(loss)``; infinite where that is beyond a float."""
    return math.exp(loss) if loss < 700 else math.inf


@dataclass(frozen=True)
class TokenScores:
    """What is measured at each predicted token of a batch of rows.

    Attributes:
        position_P: of the predicted token in its row; BOS is 0.
        loss_P, kl_P: in nats.
        parent_loss_P: the parent's loss; the model's own where it is the parent.
        rank_P: how many tokens the parent finds more probable than the model's first choice.
    """

    position_P: torch.Tensor
    loss_P: torch.Tensor
    parent_loss_P: torch.Tensor
    kl_P: torch.Tensor
    rank_P: torch.Tensor


@torch.inference_mode()
def token_scores(
    model: PuzzleForCausalLM,
    rows: Rows,
    batch_tokens: int,
    parent: PuzzleForCausalLM | None = None,
) -> Iterator[TokenScores]:
    """Scores rows, batch by batch; logits exist for a chunk of tokens at a time.

    Args:
        model: in evaluation mode.
        rows: on the model's device.
        batch_tokens: tokens in one forward pass, padding included; one row at least.
        parent: to compare with; ``None`` where the model is the parent.
    """
    batches = list(rows.token_batches(batch_tokens))
    ids = [batch.ids_NT for batch in batches]
    theirs = repeat(None) if parent is None else final_states(parent, ids)
    for batch, ours_BTH, theirs_BTH in zip(batches, final_states(model, ids), theirs, strict=False):
        where_BT = batch.predicted_NT
        target_P = batch.ids_NT[:, 1:][where_BT[:, :-1]]
        ours_PH = ours_BTH[where_BT]
        theirs_PH = ours_PH if theirs_BTH is None else theirs_BTH[where_BT]
        found = [
            _compared(
                ours_PH[part],
                model.lm_head.weight,
                theirs_PH[part],
                None if parent is None else parent.lm_head.weight,
                target_P[part],
            )
            for part in spans(len(ours_PH), len(model.lm_head.weight))
        ]
        columns = [torch.cat(column) for column in zip(*found, strict=True)]
        yield TokenScores(where_BT.nonzero()[:, 1] + 1, *columns)


def _compared(
    ours_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    theirs_CH: torch.Tensor,
    parent_weight_VH: torch.Tensor | None,
    target_C: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses of model and parent, KL and rank of the model's choice, each [C]."""
    logq_CV = log_probabilities(ours_CH, weight_VH)
    loss_C = -logq_CV.gather(-1, target_C[:, None])[:, 0]
    if parent_weight_VH is None:
        return loss_C, loss_C, torch.zeros_like(loss_C), torch.zeros_like(target_C)
    logp_CV = log_probabilities(theirs_CH, parent_weight_VH)
    parent_loss_C = -logp_CV.gather(-1, target_C[:, None])[:, 0]
    choice_C1 = logq_CV.argmax(-1, keepdim=True)
    rank_C = (logp_CV > logp_CV.gather(-1, choice_C1)).sum(-1)
    return loss_C, parent_loss_C, kl_divergence(logp_CV, logq_CV), rank_C


def evaluate(
    model: PuzzleForCausalLM,
    rows: Rows,
    batch_tokens: int,
    parent: PuzzleForCausalLM | None = None,
) -> Quality:
    """Evaluates a model on rows of text.

    Args:
        model: in evaluation mode.
        rows: on the model's device.
        batch_tokens: tokens in one forward pass, padding included; one row at least.
        parent: to compare with; ``None`` evaluates the parent itself.
    """
    loss = kl = 0.0
    agree = dict.fromkeys(CHOICES, 0)
    tokens = 0
    for scores in token_scores(model, rows, batch_tokens, parent):
        loss += scores.loss_P.double().sum().item()
        kl += scores.kl_P.double().sum().item()
        tokens += len(scores.loss_P)
        for k in CHOICES:
            agree[k] += int((scores.rank_P < k).sum())
    top1, top5, top10 = (agree[k] / tokens for k in CHOICES)
    return Quality(loss / tokens, kl / tokens, top1, top5, top10, tokens)
