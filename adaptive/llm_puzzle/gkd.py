"""Global knowledge distillation: the assembled child learns from the parent as a whole.

Loss (Puzzle, section 5): the sum over layers of ``1 - cos`` between the hidden states of child and
parent, plus the KL divergence of their next-token distributions; a language-modelling term can be
added, and the paper found that it should not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from adaptive.llm_puzzle.config import GKDConfig
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.group_trainer import schedule
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.score import kl_divergence


@dataclass(frozen=True)
class GKDLoss:
    """The terms of the loss of one batch, each averaged over tokens."""

    cosine: torch.Tensor
    kl: torch.Tensor
    lm: torch.Tensor

    def total(self, config: GKDConfig) -> torch.Tensor:
        return config.cosine * self.cosine + config.kl * self.kl + config.lm * self.lm


def distill_globally(
    child: PuzzleForCausalLM,
    parent: PuzzleForCausalLM,
    rows: Rows,
    config: GKDConfig,
    seed: int,
    track: Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]] = lambda x, _: x,
    log: Callable[..., None] = lambda *_, **__: None,
) -> int:
    """Trains the child in place.

    Args:
        child: every weight is trained.
        parent: frozen.
        rows: training rows on the models' device.
        config: tokens, optimiser and weights of the loss terms.
        seed: fixes the order of the rows.
        track: progress over steps.
        log: called as ``log(step, cosine=..., kl=..., lm=..., lr=...)``.

    Returns:
        Tokens seen.
    """
    if config.tokens == 0:
        return 0
    steps = steps_for(config.tokens, rows, config.batch_size)
    child.train().requires_grad_(True)
    matrices = [weight for weight in child.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in child.parameters() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
    )
    tokens = 0
    batches = rows.training_indices(config.batch_size, steps, seed)
    for step, index in enumerate(track(batches, steps)):
        rate = config.learning_rate * schedule(step, steps, config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = rows.select(index)
        loss = gkd_loss(child, parent, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.total(config).backward()
        nn.utils.clip_grad_norm_(child.parameters(), config.grad_clip)
        optimizer.step()
        tokens += batch.tokens
        log(step, cosine=loss.cosine.item(), kl=loss.kl.item(), lm=loss.lm.item(), lr=rate)
    child.eval().requires_grad_(False)
    return tokens


def gkd_loss(child: PuzzleForCausalLM, parent: PuzzleForCausalLM, batch: Rows) -> GKDLoss:
    """The terms of the loss on one batch of rows."""
    mask_BT, where_BT = batch.mask_NT, batch.predicted_NT
    with torch.no_grad():
        theirs = parent.model(batch.ids_NT, use_cache=False, output_hidden_states=True)
        logp_MV = parent.lm_head(theirs.last_hidden_state[mask_BT]).float().log_softmax(-1)
    ours = child.model(batch.ids_NT, use_cache=False, output_hidden_states=True)
    logq_MV = child.lm_head(ours.last_hidden_state[mask_BT]).float().log_softmax(-1)

    cosine = torch.zeros((), device=child.device)
    # The first hidden state is the embedding, before any layer.
    for a_BTH, b_BTH in zip(ours.hidden_states[1:], theirs.hidden_states[1:], strict=True):
        similarity_M = nn.functional.cosine_similarity(
            a_BTH[mask_BT].float(), b_BTH[mask_BT].float(), dim=-1
        )
        cosine = cosine + (1 - similarity_M).mean()
    target_P = batch.ids_NT[:, 1:][where_BT[:, :-1]]
    lm = nn.functional.nll_loss(logq_MV[where_BT[mask_BT]], target_P)
    return GKDLoss(cosine, kl_divergence(logp_MV, logq_MV).mean(), lm)
