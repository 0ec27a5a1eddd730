"""Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


def orthogonalise(m_GRC: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix of each [R, C] matrix, roughly, by Newton-Schulz iteration.

    Singular values end in about [0.7, 1.2], which is enough for Muon. Coefficients from Jordan et
    al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = m_GRC.shape[-2] > m_GRC.shape[-1]
    x = m_GRC.bfloat16() if m_GRC.is_cuda else m_GRC
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(m_GRC.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by ``orthogonalise``, one batched call for matrices of equal shape.

    An update is scaled by ``0.2 sqrt(max(rows, columns))``, the usual size of AdamW's, so that
    both can share a learning rate (Liu et al. 2025, arXiv:2502.16982, equation 4).
    """

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float, momentum=0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        """Updates all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    rows, columns = p.shape
                    by_shape[rows, columns].append(p)
            for (rows, columns), params in by_shape.items():
                grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
                weights: list[Tensor] = list(params)
                moments = [self._moment(p) for p in params]
                torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
                # Nesterov: look ahead along the fresh gradient.
                ahead = torch._foreach_lerp(grads, moments, group["momentum"])
                update_GRC = orthogonalise(torch.stack(list(ahead)))
                scale = 0.2 * max(rows, columns) ** 0.5 * group["lr"]
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, list(update_GRC.unbind()), alpha=-scale)

    def _moment(self, p: nn.Parameter) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return state["momentum"]


def make_optimizers(
    model: nn.Module, name: str, lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """The optimisers of a model: matrices decay, embeddings and norms do not.

    Args:
        name: ``muon`` or ``adamw`` (for the matrices).
    """
    matrices, rest = [], []
    for key, p in model.named_parameters():
        (matrices if p.ndim == 2 and "embed" not in key else rest).append(p)
    on_gpu = next(model.parameters()).is_cuda
    groups = [{"params": rest, "weight_decay": 0.0}]
    if name == "adamw":
        groups.append({"params": matrices, "weight_decay": weight_decay})
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=on_gpu)
    return [adamw] if name == "adamw" else [adamw, Muon(matrices, lr, weight_decay)]
