"""Muon and its helpers."""

from __future__ import annotations

import pytest
import torch
from tiny_parent import SHAPE

from adaptive.llm_puzzle.pretrain import model, optim


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (8, 32), (32, 8)])
def test_orthogonalise_flattens_the_spectrum_and_keeps_the_directions(rows, columns):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, rows, columns, generator=generator)
    made = optim.orthogonalise(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    alignment = ((u.mT @ made @ vh.mT).diagonal(dim1=1, dim2=2)).min()
    assert alignment > 0.3  # U V^T itself has 1


def test_muon_shrinks_by_the_decay_and_moves_by_the_scaled_rate():
    weight = torch.nn.Parameter(torch.eye(16))
    muon = optim.Muon([weight], lr=0.1, weight_decay=0.5)
    weight.grad = torch.diag(torch.linspace(1, 2, 16))
    muon.step()
    moved = torch.eye(16) * (1 - 0.05) - weight.detach()
    # 0.2 sqrt(16) lr = 0.08 times singular values of about 1
    assert moved.diagonal().min() > 0.05 and moved.diagonal().max() < 0.1
    assert (moved - torch.diag(moved.diagonal())).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_only_matrices_of_layers_decay(name):
    parent = model.build_parent(SHAPE, 0)
    decayed = [
        p
        for optimizer in optim.make_optimizers(parent, name, 1e-3, 0.1)
        for group in optimizer.param_groups
        if group["weight_decay"] > 0
        for p in group["params"]
    ]
    assert len(decayed) == 7 * SHAPE.layers and all(p.ndim == 2 for p in decayed)
    total = sum(
        len(group["params"])
        for optimizer in optim.make_optimizers(parent, name, 1e-3, 0.1)
        for group in optimizer.param_groups
    )
    assert total == len(list(parent.parameters()))
