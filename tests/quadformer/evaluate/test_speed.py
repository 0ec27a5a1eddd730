"""Measured speed: what is timed, and the numbers that follow from times."""

from __future__ import annotations

import pytest
import torch
from tiny_images import SIZE, VIT, WholeImage
from torch import nn

from adaptive.core.hardware import Timings
from adaptive.quadformer.evaluate import Speed, measure_speed
from adaptive.quadformer.models import build_vit
from adaptive.quadformer.settings import EvaluateConfig, ModelConfig


def test_rates_and_shares_follow_from_times():
    samples = {
        "model": [0.2, 0.4],
        "tokenizer": [0.02, 0.04],
        "full grid": [0.5, 1.0],
        "tome": [1, 2],
    }
    speed = Speed.of(Timings(samples, 0.01), 64, "eager")
    assert speed.images_per_second["model"] == pytest.approx(64 / 0.3)
    assert speed.images_per_second["tome"] == pytest.approx(64 / 1.5)
    assert speed.tokenizer_share == pytest.approx(0.1)
    assert speed.speedup == pytest.approx(2.5)


class Repeated(nn.Module):
    """Costs as much as several passes of a ViT."""

    def __init__(self, vit, times):
        super().__init__()
        self.vit, self.times = vit, times

    def forward(self, image_BCHW, num_tokens):
        for _ in range(self.times):
            found = self.vit(image_BCHW)
        return found


def test_what_costs_more_is_measured_slower():
    vit = build_vit(ModelConfig(**VIT), 3).eval()
    config = EvaluateConfig(seconds=1.0)
    image_BCHW = torch.rand(4, 3, SIZE, SIZE)
    speed = measure_speed(WholeImage(vit), image_BCHW, 7, {"four": Repeated(vit, 4)}, config)
    rates = speed.images_per_second
    assert set(rates) == {"model", "tokenizer", "full grid", "four"}
    assert 2.5 < rates["model"] / rates["four"] < 6
    assert 0.7 < speed.speedup < 1.4  # the stand-in is its ViT
    assert 0 < speed.tokenizer_share < 0.6
    assert (speed.mode, speed.batch) == ("eager", 4)
