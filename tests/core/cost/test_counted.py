"""Multiply-accumulates that are counted as a call runs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from adaptive.core.cost.counted import counted_macs


def test_layers_that_can_be_counted_by_hand():
    x_B3HW = torch.rand(2, 3, 8, 8)
    assert counted_macs(lambda: nn.Conv2d(3, 5, 3, padding=1)(x_B3HW)) == 2 * 64 * 5 * 27
    assert counted_macs(lambda: nn.Linear(8, 7)(x_B3HW)) == 2 * 3 * 8 * 8 * 7
    assert counted_macs(lambda: x_B3HW.sort().values.exp()) == 0


def test_attention_counts_on_the_cpu():
    q_BHTD = torch.rand(2, 3, 10, 4)
    macs = counted_macs(lambda: F.scaled_dot_product_attention(q_BHTD, q_BHTD, q_BHTD))
    assert macs == 2 * 3 * (2 * 10 * 10 * 4)
