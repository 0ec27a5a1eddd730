"""Accuracy of models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from tiny_images import CLASSES, SIZE, VIT, make_images
from torch import nn

from adaptive.core.errors import UserError
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.models import build_model
from adaptive.quadformer.settings import EvaluateConfig, ModelConfig


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


@pytest.mark.parametrize(("floor", "least"), [(None, 1), (4, 4)])
def test_images_that_share_tokens_get_them_where_there_is_something_to_see(floor, least):
    images, seen = make_images(24), []
    images.pixels[:12] = 128  # nothing
    model = build_model(ModelConfig(**VIT, prior="gain"), len(CLASSES))
    model.register_forward_hook(
        lambda _module, _images, options, _logits: seen.append(options["leaves"].lengths_B),
        with_kwargs=True,
    )
    accuracy(model, images, 7, EvaluateConfig(batch=24, shared=True, floor=floor))
    assert seen[0].sum() == 7 * 24
    assert sorted(seen[0].tolist())[:12] == [least] * 12
    accuracy(model, images, 7, EvaluateConfig(batch=8, shared=True), seed=1)
    assert [lengths_B.sum() for lengths_B in seen[1:]] == [7 * 8] * 3
    assert all(lengths_B.max() > lengths_B.min() for lengths_B in seen[1:])  # all sorts in each


def test_only_models_with_a_prior_share():
    with pytest.raises(UserError, match="shared=true needs a model with a prior, and Brightest"):
        accuracy(Brightest(), make_images(3), 10, EvaluateConfig(shared=True))
