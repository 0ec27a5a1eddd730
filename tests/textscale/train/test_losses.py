"""Losses against loops that say what they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import make_words, rectangle

from adaptive.textscale.train.losses import (
    HARD,
    KNEE,
    dice,
    losses,
    mined_cross_entropy,
    scale_error,
)
from adaptive.textscale.train.targets import targets


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random outputs, and targets of two images."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(2):
        quads = [
            rectangle(
                *rng.uniform(16, 48, 2), rng.uniform(12, 40), rng.uniform(6, 20), rng.uniform(0, 6)
            )
            for _ in range(3)
        ]
        maps.append(targets(make_words(*quads, care=[True, True, False]), 64, 64).stacked())
    output_B3hw = torch.from_numpy(rng.normal(0, 2, (2, 3, 16, 16)).astype(np.float32))
    return output_B3hw, torch.from_numpy(np.stack(maps))


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_cross_entropy_is_balanced_and_mined(seed):
    output_B3hw, target_B5hw = batch(seed)
    of_words: dict[tuple[int, float], list[float]] = {}
    background = []
    for image, (logit_hw, maps_5hw) in enumerate(zip(output_B3hw[:, 0], target_B5hw, strict=True)):
        text_hw, _, care_hw, scale_hw, share_hw = maps_5hw
        for row in range(16):
            for column in range(16):
                t = float(text_hw[row, column])
                p = 1 / (1 + math.exp(-float(logit_hw[row, column])))
                loss = sum(a * math.log(a / b) for a, b in ((t, p), (1 - t, 1 - p)) if a > 0)
                if share_hw[row, column] > 0:  # a word is known by its scale
                    word = (image, round(float(scale_hw[row, column]), 5))
                    of_words.setdefault(word, []).append(loss)
                elif care_hw[row, column] > 0:
                    background.append(loss)
    cells = sum(map(len, of_words.values()))
    count = min(max(HARD * cells, 0.01 * 512), len(background))
    hardest = sorted(background, reverse=True)[: math.ceil(count)]
    of_rest = sum(hardest) / count
    of_text = sum(sum(each) / len(each) for each in of_words.values()) / max(1, len(of_words))
    expected = (of_text + HARD * of_rest) / (1 + HARD)
    text, _, care, _, share = target_B5hw.unbind(1)
    found = mined_cross_entropy(output_B3hw[:, 0], text, care, share)
    assert float(found) == pytest.approx(expected, rel=2e-3)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_scale_errors_are_means_over_words(seed):
    output_B3hw, target_B5hw = batch(seed)
    of_words: dict[tuple[int, float], list[float]] = {}
    for image in range(2):
        z_hw, share_hw = target_B5hw[image, 3], target_B5hw[image, 4]
        for row, column in torch.nonzero(share_hw).tolist():
            error = abs(float(output_B3hw[image, 2, row, column] - z_hw[row, column]))
            loss = error**2 / (2 * KNEE) if error < KNEE else error - KNEE / 2
            word = (image, round(float(z_hw[row, column]), 5))
            of_words.setdefault(word, []).append(loss)
    expected = sum(sum(each) / len(each) for each in of_words.values()) / max(1, len(of_words))
    found = scale_error(output_B3hw[:, 2], target_B5hw[:, 3], target_B5hw[:, 4])
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_dice_is_0_for_the_target_and_1_for_its_reverse():
    target_Bhw = (torch.rand(2, 8, 8) > 0.5).float()
    care_Bhw = torch.ones(2, 8, 8)
    assert dice(40 * target_Bhw - 20, target_Bhw, care_Bhw) < 1e-5
    assert dice(20 - 40 * target_Bhw, target_Bhw, care_Bhw) > 1 - 1e-5


def test_cells_that_are_not_judged_change_nothing():
    output_B3hw, target_B5hw = batch(3)
    ignored_Bhw = target_B5hw[:, 2] == 0
    assert ignored_Bhw.any()
    changed_B3hw = torch.where(ignored_Bhw[:, None], output_B3hw + 5, output_B3hw)
    before, after = losses(output_B3hw, target_B5hw), losses(changed_B3hw, target_B5hw)
    for name, value in vars(before).items():
        assert float(value) == pytest.approx(float(getattr(after, name)), abs=1e-6), name


def test_every_part_can_reach_zero():
    """Targets are shares of cells: a loss must not punish the network for saying so."""
    _, target_B5hw = batch(5)
    text, border, _, scale, _ = target_B5hw.unbind(1)
    logits = [torch.logit(part, eps=1e-6) for part in (text, border)]
    found = losses(torch.stack([*logits, scale], 1), target_B5hw)
    assert max(float(value) for value in vars(found).values()) < 1e-3
    assert float(found.total) == pytest.approx(
        sum(float(v) for v in vars(found).values()), abs=1e-6
    )


def test_large_words_weigh_no_more_than_small_ones():
    quads = [rectangle(40, 20, 16, 8), rectangle(60, 80, 100, 60)]
    target_B5hw = torch.from_numpy(targets(make_words(*quads), 128, 128).stacked())[None]
    text, _, care, _, share = target_B5hw.unbind(1)
    logit_Bhw = torch.zeros(1, 32, 32, requires_grad=True)
    mined_cross_entropy(logit_Bhw, text.round(), care, share).backward()
    gradient_hw, inside_hw = logit_Bhw.grad[0].abs(), share[0] > 0
    upper = gradient_hw[:8][inside_hw[:8]].sum()
    lower = gradient_hw[8:][inside_hw[8:]].sum()
    assert upper == pytest.approx(float(lower), rel=1e-4)


def test_no_text_at_all_is_learned_from():
    target_B5hw = torch.from_numpy(targets(make_words(), 64, 64).stacked())[None]
    output_B3hw = torch.zeros(1, 3, 16, 16, requires_grad=True)
    found = losses(output_B3hw, target_B5hw)
    found.total.backward()
    assert found.text > 0 and found.scale == 0 and output_B3hw.grad.isfinite().all()
