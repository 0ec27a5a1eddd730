"""Next-token distributions of two models compared without ever holding all their logits.

The logits of M tokens over a large vocabulary are by far the largest tensor of a language model
(65k tokens x 128k entries: 34 GB in single precision). Here the head is applied to a chunk of
tokens at a time, and the backward pass computes each chunk anew.

Shapes: M tokens, C tokens of a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

CHUNK_LOGITS = 2**26  # logits of one model at once: 256 MiB in single precision


def chunk_tokens(vocab: int) -> int:
    """Tokens whose logits may exist at once."""
    return max(1, CHUNK_LOGITS // vocab)


def log_probabilities(x_CH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the next token, [C, V], in single precision or better."""
    logits_CV = x_CH @ weight_VH.T
    wide = torch.promote_types(logits_CV.dtype, torch.float32)
    return logits_CV.to(wide).log_softmax(-1)


def kl_divergence(logp_CV: torch.Tensor, logq_CV: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of each token in nats, [C], from log-probabilities."""
    return (logp_CV.exp() * (logp_CV - logq_CV)).sum(-1)


def spans(tokens: int, vocab: int, chunk: int | None = None) -> Iterator[slice]:
    """Consecutive chunks of M tokens; ``chunk`` overrides their size."""
    size = chunk or chunk_tokens(vocab)
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


def head_losses(
    x_MH: torch.Tensor,
    weight_VH: torch.Tensor,
    parent_MH: torch.Tensor,
    parent_weight_VH: torch.Tensor,
    target_M: torch.Tensor,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over tokens of KL(parent || child) and of the child's next-token loss, in nats.

    Differentiable in ``x_MH`` and ``weight_VH``. The largest tensors are [C, V] and the gradient
    [V, H] of the weight, which is summed in single precision.

    Args:
        x_MH: the child's last hidden states, normed.
        weight_VH: of its head.
        parent_MH, parent_weight_VH: the parent's, constants.
        target_M: int64 next tokens; -1 where there is none to predict.
        chunk: tokens at once; by default as many as :data:`CHUNK_LOGITS` allows.
    """
    found = _HeadLosses.apply(x_MH, weight_VH, parent_MH, parent_weight_VH, target_M, chunk)
    return found


class _HeadLosses(torch.autograd.Function):
    """Autograd would keep several [M, V] tensors; the gradients in closed form need none of them.

    With q the child's probabilities, p the parent's and e the target's unit vector, the gradients
    with respect to the child's logits are q - p of the divergence and q - e of the loss.
    """

    @staticmethod
    def forward(  # pyrefly: ignore[bad-override]
        ctx: Any,
        x_MH: torch.Tensor,
        weight_VH: torch.Tensor,
        parent_MH: torch.Tensor,
        parent_weight_VH: torch.Tensor,
        target_M: torch.Tensor,
        chunk: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(x_MH, weight_VH, parent_MH, parent_weight_VH, target_M)
        ctx.chunk = chunk
        wide = torch.promote_types(x_MH.dtype, torch.float32)
        kl, lm = (torch.zeros((), dtype=wide, device=x_MH.device) for _ in range(2))
        for part in spans(len(x_MH), len(weight_VH), chunk):
            logp_CV = log_probabilities(parent_MH[part], parent_weight_VH)
            logq_CV = log_probabilities(x_MH[part], weight_VH)
            target_C = target_M[part]
            nll_C = -logq_CV.gather(-1, target_C.clamp(min=0)[:, None])[:, 0]
            lm += nll_C.masked_fill(target_C < 0, 0).sum()
            logq_CV.neg_().add_(logp_CV)
            kl += logq_CV.mul_(logp_CV.exp_()).sum()
        return kl, lm

    @staticmethod
    def backward(ctx: Any, kl_grad: torch.Tensor, lm_grad: torch.Tensor) -> tuple[Any, ...]:  # pyrefly: ignore[bad-override]
        x_MH, weight_VH, parent_MH, parent_weight_VH, target_M = ctx.saved_tensors
        x_grad_MH = torch.zeros_like(x_MH)
        wide = torch.promote_types(weight_VH.dtype, torch.float32)
        weight_grad_VH = torch.zeros_like(weight_VH, dtype=wide)
        for part in spans(len(x_MH), len(weight_VH), ctx.chunk):
            p_CV = log_probabilities(parent_MH[part], parent_weight_VH).exp_()
            grad_CV = log_probabilities(x_MH[part], weight_VH).exp_()
            target_C = target_M[part]
            lm_grad_C = torch.where(target_C < 0, 0, lm_grad)
            grad_CV.mul_((kl_grad + lm_grad_C)[:, None]).sub_(p_CV.mul_(kl_grad))
            grad_CV.scatter_add_(-1, target_C.clamp(min=0)[:, None], -lm_grad_C[:, None])
            grad_CV = grad_CV.to(weight_VH.dtype)
            x_grad_MH[part] = grad_CV @ weight_VH
            if weight_VH.dtype == wide:
                weight_grad_VH.addmm_(grad_CV.T, x_MH[part])
            else:
                weight_grad_VH += grad_CV.T @ x_MH[part]
        return x_grad_MH, weight_grad_VH, None, None, None, None
