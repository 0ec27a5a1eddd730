"""The training loop: it learns, it resumes to the bit, and mistakes are told."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_text import Scenes, make_net

from adaptive.core.errors import UserError
from adaptive.textscale.data.images import UnreadableImage
from adaptive.textscale.train.samples import BLOCK, POOL, Samples, Source, batches
from adaptive.textscale.train.settings import DetectConfig, SampleConfig, TrainConfig
from adaptive.textscale.train.trainer import CHECKPOINT, Trainer
from adaptive.textscale.train.validate import make_detector, scale_errors, validate

SAMPLE = SampleConfig(side=64, scale=[12.0, 30.0], packed=0.25)
TRAIN = TrainConfig(
    steps=6, batch=4, warmup_steps=2, ema=0.9, checkpoint_seconds=0, validate_steps=4
)


def make_samples(count: int = 24, seed: int = 0, **changes) -> Samples:
    return Samples([Source(Scenes(6))], replace(SAMPLE, **changes), seed, count)


def make_trainer(work, samples: Samples | None = None, **changes) -> Trainer:
    own = {k: changes.pop(k) for k in ("log", "on_validate", "workers") if k in changes}
    config = replace(TRAIN, **changes)
    samples = samples or make_samples(config.steps * config.batch)
    return Trainer(make_net(), samples, config, work, **own)


def weights_of(trainer: Trainer) -> torch.Tensor:
    states = [model.state_dict() for model in trainer.models.values()]
    return torch.cat([value.flatten().float() for state in states for value in state.values()])


class Interrupted(Exception):
    pass


# --- samples ---


def test_a_sample_is_a_function_of_seed_and_number():
    one, same, other = make_samples(), make_samples(), make_samples(seed=1)
    list(map(one.__getitem__, (5, 3, 0)))  # what was made before does not matter
    for index in (0, 7):
        for a, b in zip(one[index], same[index], strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(one[0][0], other[0][0])
    image_3HW, target_5hw = one[0]
    assert image_3HW.shape == (3, 64, 64) and image_3HW.dtype == np.uint8
    assert target_5hw.shape == (5, 16, 16) and target_5hw.dtype == np.float32


def test_sources_have_their_shares():
    scenes = [Source(Scenes(3), 1.0), Source(Scenes(3, first=100), 0.0)]
    samples = Samples(scenes, replace(SAMPLE, packed=0.0), 0, 20)
    for index in range(20):
        samples.annotated(index)
    assert {source for source, _ in samples._kept} == {0}


def test_anchors_choose_images_too():
    anchors = [np.zeros(4), np.array([0.0, 1.0, 0.0, 0.0]), np.zeros(4)]
    samples = Samples([Source(Scenes(3), 1.0, anchors)], SAMPLE, 0, 10)
    for index in range(10):
        samples.annotated(index)
    assert {image for _, image in samples._kept} == {1}


def test_a_block_of_samples_decodes_few_images():
    """Decoding takes longer than all else, so samples that are made together share images."""
    samples = make_samples(BLOCK, packed=1.0, side=32)
    samples.sources[0] = replace(samples.sources[0], images=Scenes(500))
    for index in range(0, BLOCK, 4):
        samples.annotated(index)
    assert len(samples._kept) <= POOL


class Damaged(Scenes):
    """Scenes of which only one can be decoded."""

    def __getitem__(self, index):
        if index != 2:
            raise UnreadableImage(f"img_{index}.jpg is empty: remove or replace it")
        return super().__getitem__(index)


def test_photographs_that_cannot_be_read_are_passed_over(capsys):
    samples = Samples([Source(Damaged(4))], SAMPLE, 0, 8)
    for index in range(8):
        samples.annotated(index)
    assert {image for _, image in samples._kept} == {2}
    assert capsys.readouterr().err.count("left out") == 3
    with pytest.raises(UserError, match="images in a row cannot be decoded: look at data.train"):
        Samples([Source(Damaged(2))], SAMPLE, 0, 1).annotated(0)


@pytest.mark.slow
def test_workers_make_the_same_batches():
    alone, shared = (list(batches(make_samples(8), 4, workers, 0)) for workers in (0, 2))
    for (image, target), (image_w, target_w) in zip(alone, shared, strict=True):
        assert torch.equal(image, image_w) and torch.equal(target, target_w)


def test_batches_begin_where_they_are_told():
    every, rest = (list(batches(make_samples(12), 4, 0, first)) for first in (0, 2))
    assert len(every) == 3 and len(rest) == 1 and torch.equal(every[2][0], rest[0][0])


# --- training ---


@pytest.mark.slow
def test_it_learns(tmp_path):
    """Words of stripes in light boxes: the loss halves, and most words of new scenes are found."""
    records, scores = [], []

    def judge(trainer):
        detector = make_detector(trainer.best, DetectConfig(box_threshold=0.3), "cpu")
        scores.append(validate(detector, Scenes(6, first=50), 960))

    samples = Samples([Source(Scenes(24))], SampleConfig(side=96, scale=[14.0, 28.0]), 0, 100 * 6)
    trainer = make_trainer(
        tmp_path, samples, steps=100, batch=6, learning_rate=1e-2, warmup_steps=5,
        validate_steps=100, checkpoint_seconds=1e9, log=lambda **r: records.append(r),
        on_validate=judge,
    )  # fmt: skip
    trainer.run()
    parts = [records[-1][part] for part in ("text", "overlap", "border", "scale")]
    assert records[-1]["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert records[-1]["step"] == 100 and records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert scores[-1].score.hmean > 0.5 and scores[-1].scale_error < 0.3
    assert scores[-1].score.care_words == 24 and len(scores[-1].found) == 6


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"ema": 0.0}], ids=str)
def test_an_interruption_leaves_no_trace(tmp_path, changes):
    whole = make_trainer(tmp_path / "whole", **changes)
    whole.run()
    cut = make_trainer(tmp_path / "cut", **changes)
    update = cut.update

    def until(step, image_B3HW, target_B5hw):
        if step == 3:
            raise Interrupted
        return update(step, image_B3HW, target_B5hw)

    cut.update = until
    with contextlib.suppress(Interrupted):
        cut.run()
    resumed = make_trainer(tmp_path / "cut", **changes)
    steps = []
    update = resumed.update
    resumed.update = lambda step, *batch: steps.append(step) or update(step, *batch)
    resumed.run()
    assert steps == [3, 4, 5] and (tmp_path / "cut" / CHECKPOINT).exists()
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_validation_comes_as_often_as_told(tmp_path):
    seen = []
    make_trainer(tmp_path, on_validate=lambda trainer: seen.append(trainer.step)).run()
    assert seen == [4, 6]


def test_vectors_have_no_weight_decay(tmp_path):
    decayed, rest = make_trainer(tmp_path).optimizer.param_groups
    assert decayed["weight_decay"] == TRAIN.weight_decay and rest["weight_decay"] == 0.0
    assert all(w.ndim > 1 for w in decayed["params"]) and all(w.ndim == 1 for w in rest["params"])


def test_a_loss_that_is_not_finite_is_told(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.net.head[-1].bias.fill_(math.nan)
    with pytest.raises(UserError, match="the loss is nan at step 1: lower train.learning_rate"):
        trainer.run()


@pytest.mark.slow
@pytest.mark.usefixtures("compiling")
def test_compiled_steps_are_eager_ones(tmp_path, monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda f, dynamic: compiler(f, dynamic=dynamic, backend="eager", fullgraph=True),
    )
    found = []
    for compiled in (False, True):
        trainer = make_trainer(tmp_path, compile=compiled, checkpoint_seconds=1e9)
        trainer.run()
        found.append(weights_of(trainer))
    assert torch.allclose(found[0], found[1], atol=1e-4)


# --- validation ---


def test_scale_errors_are_logarithms_of_ratios():
    from tiny_text import make_words, rectangle

    from adaptive.textscale.words import TextMaps

    words = make_words(rectangle(40, 40, 50, 20), rectangle(90, 90, 30, 10, 0.5))
    maps_hw = np.full((32, 32), math.log(16 / 32), np.float32)
    maps = TextMaps(maps_hw, maps_hw, maps_hw)
    expected = [abs(math.log(16 / 20)), abs(math.log(16 / 10))]
    np.testing.assert_allclose(scale_errors(maps, words.quad_N42), expected, atol=1e-3)
