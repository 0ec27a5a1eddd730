"""Accuracy of models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from tiny_images import CLASSES, SIZE, make_images
from torch import nn

from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.settings import EvaluateConfig


class Brightest(nn.Module):
    """Says which channel is the brightest, of images that it normalises back."""

    def __init__(self, centre: bool = False):
        super().__init__()
        self.vit = nn.Module()
        self.vit.pretrained_cfg = {"mean": (0.2, 0.3, 0.4), "std": (0.1, 0.5, 0.7)}
        self.centre, self.asked = centre, []

    def forward(self, image_BCHW, num_tokens):
        assert not self.training
        self.asked.append((len(image_BCHW), num_tokens))
        mean, std = (
            torch.tensor(self.vit.pretrained_cfg[k])[:, None, None] for k in ("mean", "std")
        )
        image_BCHW = image_BCHW * std + mean
        assert image_BCHW.min() >= -1e-5 and image_BCHW.max() <= 1 + 1e-5
        if self.centre:
            image_BCHW = image_BCHW[:, :, SIZE // 2 : SIZE // 2 + 1, SIZE // 2 : SIZE // 2 + 1]
        return image_BCHW.mean((2, 3)).flip(1)


@pytest.mark.parametrize("batch", [1, 5, 24, 100])
def test_a_perfect_model_gets_all_and_labels_decide(batch):
    images, model = make_images(24), Brightest()
    config = EvaluateConfig(batch=batch)
    assert accuracy(model, images, 7, config) == 100.0
    assert sum(size for size, _ in model.asked) == 24
    assert {tokens for _, tokens in model.asked} == {7}
    images.label_N[:6] = (images.label_N[:6] + 1) % len(CLASSES)
    assert accuracy(model, images, 7, config) == 75.0


def test_shifts_do_not_depend_on_the_batch():
    """One pixel at the centre decides: what it shows depends on where the window is."""
    images, found = make_images(240), {}
    for batch in (7, 240):
        for shift in (0.0, 0.5):
            config = EvaluateConfig(batch=batch, shift=shift)
            found[batch, shift] = accuracy(Brightest(centre=True), images, 7, config, seed=1)
    assert found[7, 0.5] == found[240, 0.5] and found[7, 0.0] == found[240, 0.0]
    assert found[7, 0.5] != found[7, 0.0]


def test_an_object_in_a_corner_is_moved_towards_the_middle():
    images = make_images(30)
    images.pixels[:] = 0
    for number, label in enumerate(images.label_N.tolist()):
        images.pixels[number, 2 - label, :16, :16] = 255
    still = accuracy(Brightest(centre=True), images, 7, EvaluateConfig())
    moved = accuracy(Brightest(centre=True), images, 7, EvaluateConfig(shift=0.5))
    # Black is called the first class; one corner of four shows the colour.
    assert still == pytest.approx(100 / 3) and still + 5 < moved < 90
