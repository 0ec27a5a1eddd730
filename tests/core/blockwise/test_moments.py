"""Closed-form fits of narrower blocks."""

from __future__ import annotations

import torch

from adaptive.core.blockwise.moments import Moments, contribution, most


def test_ridge_is_the_least_regularised_error():
    """Against the augmented least-squares problem that defines it."""
    torch.manual_seed(0)
    f_MF, y_MH = torch.randn(40, 6), torch.randn(40, 3)
    moments = Moments.of((f_MF[i : i + 10], y_MH[i : i + 10]) for i in range(0, 40, 10))
    strength = 0.1 * f_MF.double().square().sum(0).mean()
    for keep in (None, torch.tensor([0, 2, 5])):
        f = (f_MF if keep is None else f_MF[:, keep]).double()
        if keep is not None:
            strength = 0.1 * f.square().sum(0).mean()
        rows = torch.cat([f, strength.sqrt() * torch.eye(f.shape[1], dtype=torch.float64)])
        target = torch.cat([y_MH.double(), torch.zeros(f.shape[1], 3, dtype=torch.float64)])
        wanted = torch.linalg.lstsq(rows, target).solution.T
        torch.testing.assert_close(moments.solve(0.1, keep), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(moments.mean_abs_F, f_MF.abs().double().mean(0))


def test_ridge_survives_features_that_are_never_active():
    moments = Moments.of(iter([(torch.zeros(4, 3), torch.ones(4, 2))]))
    assert torch.equal(moments.solve(1e-4), torch.zeros(2, 3, dtype=torch.float64))


def test_what_a_channel_gives_is_its_size_times_its_column():
    weight_HF = torch.tensor([[3.0, 0.0, 1.0], [4.0, 2.0, 0.0]])
    value_F = contribution(torch.tensor([1.0, 5.0, 6.0], dtype=torch.float64), weight_HF)
    torch.testing.assert_close(value_F, torch.tensor([5.0, 10.0, 6.0], dtype=torch.float64))
    assert most(value_F, 2).tolist() == [1, 2]
