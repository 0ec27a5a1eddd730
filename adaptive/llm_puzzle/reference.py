"""How models compare with a reference on the same rows: the metrics of scores.

Only last hidden states are kept. Logits exist for a chunk of tokens at a time, the reference's once
for all that are compared with it.

Shapes: B rows, T tokens, M real tokens of B rows, C models, S tokens of a chunk, H hidden size, V
vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.head import log_probabilities, spans
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM

METRICS = ("kl", "lm_loss", "cosine")


class Reference:
    """The parent's result on a batch of rows.

    Args:
        model: the parent, whose head it is.
        final_BTH: the parent's last hidden states, normed.
        rows: the batch.
        top_k: entries of the parent's distribution that the divergence tells apart, the others
            being one; None tells all apart. A bound from below: to merge entries loses information.
        compiled: fuse the elementwise work.
        compared: what is compared with it, where that has a head of its own.
    """

    def __init__(
        self,
        model: PuzzleForCausalLM,
        final_BTH: torch.Tensor,
        rows: Rows,
        top_k: int | None = None,
        compiled: bool = False,
        compared: PuzzleForCausalLM | None = None,
    ):
        self.weight_VH, self.top_k = model.lm_head.weight, top_k
        self.other_VH = (compared or model).lm_head.weight
        self.mask_BT = rows.mask_NT
        self.final_MH = final_BTH[self.mask_BT]
        following_BT = nn.functional.pad(rows.ids_NT[:, 1:], (0, 1))
        target_M = following_BT.masked_fill(~rows.predicted_NT, -1)[self.mask_BT]
        self.target_M: torch.Tensor = target_M
        self.counts = {
            "kl": len(target_M),
            "lm_loss": int((target_M >= 0).sum()),
            "cosine": len(target_M),
        }
        self._sums = _compiled() if compiled else sums

    def compare(self, finals_CBTH: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sums over tokens of each metric for C models, [C] float64.

        ``kl``: KL(parent || model) in nats; ``lm_loss``: next-token loss, less the parent's;
        ``cosine``: one minus the cosine of the last hidden states.
        """
        finals_CMH = finals_CBTH[:, self.mask_BT]
        count, device = len(finals_CMH), finals_CMH.device
        kl_C, loss_C = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
        for span in spans(len(self.target_M), len(self.weight_VH)):
            target_S = self.target_M[span]
            logp_SV = log_probabilities(self.final_MH[span], self.weight_VH)
            own = next_token_loss(logp_SV, target_S)
            top = logp_SV.topk(self.top_k) if self.top_k else None
            for c in range(count):
                logits_SV = finals_CMH[c, span] @ self.other_VH.T
                kl, loss = self._sums(logp_SV, logits_SV, target_S, top)
                kl_C[c] += kl
                loss_C[c] += loss - own
        cosine_CM = nn.functional.cosine_similarity(
            finals_CMH.float(), self.final_MH.float()[None], dim=-1
        )
        return {"kl": kl_C, "lm_loss": loss_C, "cosine": (1 - cosine_CM).double().sum(1)}


def sums(
    logp_SV: torch.Tensor,
    logits_SV: torch.Tensor,
    target_S: torch.Tensor,
    top: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p || q) and next-token loss of q, summed over tokens, in nats.

    Args:
        logp_SV: log-probabilities of p.
        logits_SV: of q.
        target_S: next tokens, -1 where there is none.
        top: values and indices of p's largest entries, the only ones told apart; None is all.
    """
    wide = torch.promote_types(logits_SV.dtype, torch.float32)
    logq_SV = logits_SV.to(wide).log_softmax(-1)
    loss = next_token_loss(logq_SV, target_S)
    if top is None:
        return (logp_SV.exp() * (logp_SV - logq_SV)).sum(-1).double().sum(), loss
    logp_SK, index_SK = top
    logq_SK = logq_SV.gather(-1, index_SK)
    rest_p_S, rest_q_S = ((1 - log.exp().sum(-1)).clamp(min=1e-12) for log in (logp_SK, logq_SK))
    kl_S = (logp_SK.exp() * (logp_SK - logq_SK)).sum(-1)
    return (kl_S + rest_p_S * (rest_p_S / rest_q_S).log()).double().sum(), loss


def next_token_loss(logq_SV: torch.Tensor, target_S: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats, summed over the tokens that have a target."""
    nll_S = -logq_SV.gather(-1, target_S.clamp(min=0)[:, None])[:, 0]
    return nll_S.masked_fill(target_S < 0, 0.0).double().sum()


@functools.cache
def _compiled() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return torch.compile(sums, dynamic=True)
