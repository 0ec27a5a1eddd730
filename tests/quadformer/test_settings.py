"""Settings that mean nothing are refused by name; reading them needs no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import adaptive
from adaptive.core.errors import UserError


@pytest.mark.parametrize(
    "override, words",
    [
        ("model.patch=15", "model.patch=15 must divide model.size=224"),
        ("model.size=0", "model.size=0 must be above 0"),
        ("data.memory=gpu", "data.memory='gpu': choose one of auto, device, stream"),
        ("data.workers=0", "data.workers=0 must be at least 1"),
        ("data.train=null", "data.train is empty: name a folder of images"),
        ("augment.crop=[0.5,0.2]", r"augment.crop=\[0.5, 0.2\] must be two shares"),
        ("augment.ratio=0.5", "augment.ratio=0.5 must be at least 1"),
        ("augment.jitter=1", "augment.jitter=1.0 must lie in 0 to 1"),
        ("augment.flip=2", "augment.flip=2.0 must lie in 0 to 1"),
        ("augment.mixup=-1", "augment.mixup=-1.0 must not be negative"),
        ("train.batch=0", "train.batch=0 must be above 0"),
        ("train.ema=1", "train.ema=1.0 must lie in 0 to 1, 1 excluded"),
        ("train.layer_decay=2", "train.layer_decay=2.0 must lie in 0 to 1"),
        ("train.num_tokens=[0]", r"train.num_tokens=\[0\] must be positive"),
        ("train.num_tokens=[64,400]", "train.num_tokens: 400 is more than the 256 patches"),
        ("train.epochs=5", "train.warmup_epochs=5.0 must be below train.epochs=5"),
        ("train.distill.temperature=0", "train.distill.temperature=0.0 must be above 0"),
        ("evaluate.weights=best", "evaluate.weights='best': choose ema or model"),
        ("evaluate.shift=1", "evaluate.shift=1.0 must lie in 0 to 1, 1 excluded"),
        ("evaluate.floor=16", "evaluate.floor=16 is of images that share tokens: set evaluate"),
    ],
)
def test_mistakes_in_training_are_told(override, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("quadformer_train", override)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["num_tokens=0"], "num_tokens=0 must be at least 1"),
        (["num_tokens=null"], "num_tokens or budget.latency says what to spend, but neither is"),
        (["budget.latency=4ms"], "but both 100 and 4ms are given: set one of them"),
        (["num_tokens=null", "budget.latency=4parsecs"], "unknown unit 'parsecs'"),
        (
            ["num_tokens=null", "budget.latency=4ms", "evaluate.speed_batch=0"],
            "budget.latency=4ms is of a forward of evaluate.speed_batch images: set that above 0",
        ),
        (
            ["data.valid=null", "evaluate.shift=0.3"],
            "evaluate.shift=0.3 is of the images in data.valid, and there are none",
        ),
        (
            ["data.valid=null", "evaluate.shared=true"],
            "evaluate.shared=true is of the images in data.valid, and there are none",
        ),
        (
            ["data.valid=null", "checkpoint=null", "evaluate.speed_batch=0"],
            "nothing is left to measure: name a checkpoint, images in data.valid",
        ),
    ],
)
def test_mistakes_in_evaluation_are_told(overrides, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("quadformer_eval", *overrides)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["train.distill.teacher=ema", "train.ema=0"], "teacher=ema needs train.ema above 0"),
        (["data.train_maps=m.npy", "model.kind=uniform"], "not of uniform: set it to null"),
    ],
)
def test_settings_that_exclude_each_other(overrides, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("quadformer_train", *overrides)


def test_reading_settings_needs_no_torch():
    code = "import sys, adaptive.quadformer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
