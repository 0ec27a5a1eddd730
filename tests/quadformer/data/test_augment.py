"""Augmentation: images and maps stay in step, and what is drawn follows from the generator."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.normalise import Normalise
from adaptive.core.prior.grey import grey
from adaptive.quadformer.data import Mix, Prepare, augment, mixed, shifted, warp
from adaptive.quadformer.data.augment import (
    NUMBERS,
    blur,
    crop_and_flip,
    erase,
    jitter,
    three_augment,
)
from adaptive.quadformer.settings import AugmentConfig

EVERYTHING = AugmentConfig(three=0.75, jitter=0.3, erase=0.5)
OFF = AugmentConfig(crop=(1.0, 1.0), ratio=1.0, flip=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(seed: int = 0, count: int = 6):
    """Numbers for each image, as many as anything asks for."""
    return iter(torch.rand(16, count, generator=generator(seed)))


def batch(count: int = 6, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=generator(99))


def augmented(config: AugmentConfig, image_BCHW: torch.Tensor, seed: int = 0, map_B1hw=None):
    """What a seed makes of images."""
    u_BR = torch.rand(len(image_BCHW), NUMBERS, generator=generator(seed))
    return augment(image_BCHW, config, u_BR, map_B1hw)


@given(seed=st.integers(0, 10_000))
def test_image_and_map_stay_in_step(seed):
    """A map that is a channel of its image still is one after crop, flip and erasing."""
    image_BCHW = batch()
    config = AugmentConfig(crop=(0.2, 1.0), flip=0.5)
    found, map_B1hw = augmented(config, image_BCHW, seed, image_BCHW[:, :1])
    assert map_B1hw is not None and torch.equal(found[:, :1], map_B1hw)
    erased, none = erase(image_BCHW, 1.0, draws(seed), torch.ones(6, 1, 16, 16))
    assert none is not None
    assert torch.equal((none == 0).expand_as(image_BCHW), erased != image_BCHW)


NORMALISE = Normalise(torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.2))
BYTES = (batch() * 255).byte()


@pytest.mark.parametrize("mix", [Mix(), Mix(0.3, blend=0.3), Mix(0.5, (0.0, 0.5, 0.0, 1.0), 0.0)])
def test_bytes_become_mixed_normalised_images(mix):
    map_B1hw = torch.rand(6, 1, 8, 8)
    found, maps = Prepare(EVERYTHING, NORMALISE)(BYTES, generator(3), mix, map_B1hw)
    expected, map_B1hw = augmented(EVERYTHING, BYTES.float() / 255, 3, map_B1hw)
    assert torch.equal(found, NORMALISE(mixed(expected, mix.numbers("cpu"))))
    assert torch.equal(maps, mixed(map_B1hw, mix.numbers("cpu")))


def test_compiled_it_is_the_same(monkeypatch, compiling):
    """Captured whole: nothing in it asks the device; and once, however batches are mixed."""
    compiler, seen = torch.compile, []

    def run(graph, _):
        seen.append(graph)
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda f, dynamic: compiler(f, backend=run, fullgraph=True)
    )
    map_B1hw = torch.rand(6, 1, 8, 8)
    eager, captured = (Prepare(EVERYTHING, NORMALISE, compiled) for compiled in (False, True))
    for mix in (Mix(), Mix(0.3, blend=0.3), Mix(0.5, (0.0, 0.5, 0.0, 1.0), 0.0)):
        both = [one(BYTES, generator(3), mix, map_B1hw) for one in (eager, captured)]
        for expected, found in zip(*both, strict=True):
            assert torch.equal(expected, found)
    assert len(seen) == 1
    # Sums over colours as a matrix product would part it into kernels, with the batch in between.
    products = {"einsum", "matmul", "bmm"}
    assert not products & {getattr(node.target, "__name__", "") for node in seen[0].graph.nodes}


def test_the_same_generator_gives_the_same_batch_and_another_does_not():
    prepare = Prepare(EVERYTHING, NORMALISE)
    first, again, other = (prepare(BYTES, generator(seed), Mix())[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_images_of_a_batch_are_drawn_apart():
    same = batch(1).expand(8, -1, -1, -1)
    found, _ = augmented(EVERYTHING, same)
    assert len({tuple(image.flatten().tolist()) for image in found}) == 8


def test_switched_off_nothing_changes():
    found, none = augmented(OFF, batch())
    assert none is None and torch.allclose(found, batch(), atol=1e-5)


def test_a_flip_is_a_mirror():
    found, _ = augmented(replace(OFF, flip=1.0), batch())
    assert torch.allclose(found, batch().flip(3), atol=1e-5)


@given(seed=st.integers(0, 1000), low=st.floats(0.05, 1.0))
def test_crops_lie_within_the_image_and_keep_their_share(seed, low):
    config = AugmentConfig(crop=(low, 1.0), flip=0.5)
    theta_B23 = crop_and_flip(config, draws(seed, 16))
    wide_B, high_B = theta_B23[:, 0, 0].abs(), theta_B23[:, 1, 1]
    assert (theta_B23[:, 0, 2].abs() + wide_B <= 1 + 1e-6).all()
    assert (theta_B23[:, 1, 2].abs() + high_B <= 1 + 1e-6).all()
    # A side cut to the image's makes the area smaller, by the ratio's root at most.
    assert (wide_B * high_B >= low / config.ratio**0.5 - 1e-5).all()
    ratio_B = wide_B / high_B
    assert (ratio_B <= config.ratio + 1e-4).all() and (ratio_B >= 1 / config.ratio - 1e-4).all()


@given(seed=st.integers(0, 1000), strength=st.floats(0.05, 0.9))
def test_values_stay_in_range(seed, strength):
    for found in (
        jitter(batch(), strength, draws(seed)),
        three_augment(batch(), 1.0, draws(seed)),
        augmented(EVERYTHING, batch(), seed)[0],
    ):
        assert found.min() >= -1e-5 and found.max() <= 1 + 1e-5


def test_three_augment_does_one_of_three_or_nothing():
    image_BCHW = batch(300, 8)
    found = three_augment(image_BCHW, 0.75, draws(0, 300))
    kinds = {
        "grey": grey(image_BCHW)[:, None].expand_as(image_BCHW),
        "solar": torch.where(image_BCHW > 0.5, 1 - image_BCHW, image_BCHW),
        "blur": blur(image_BCHW),
        "same": image_BCHW,
    }
    counts = {k: int((found == v).flatten(1).all(1).sum()) for k, v in kinds.items()}
    assert sum(counts.values()) == 300 and all(50 <= n <= 100 for n in counts.values()), counts


def test_blur_keeps_flat_regions_and_smooths_others():
    flat = torch.full((1, 3, 12, 12), 0.3)
    assert torch.allclose(blur(flat), flat)
    assert blur(batch()).var() < 0.1 * batch().var()


def test_an_erased_box_is_flat_and_as_large_as_it_should_be():
    image_BCHW = batch(64, 64)
    found, _ = erase(image_BCHW, 1.0, draws(0, 64))
    share_B = (found != image_BCHW).any(1).float().mean((1, 2))
    assert share_B.min() > 0.01 and share_B.max() < 0.36
    assert torch.equal(erase(image_BCHW, 0.0, draws(0, 64))[0], image_BCHW)


def test_shifts_go_to_corners():
    theta_B23 = shifted(200, 0.25, generator())
    corners = {tuple(row.tolist()) for row in theta_B23[:, :, 2]}
    assert corners == {(a, b) for a in (-0.25, 0.25) for b in (-0.25, 0.25)}
    image_BCHW = batch(1, 16)
    whole = warp(image_BCHW, shifted(1, 0.0, generator()))
    assert torch.allclose(whole, image_BCHW, atol=1e-5)


@given(
    seed=st.integers(0, 10_000),
    mixup=st.sampled_from([0.0, 0.2]),
    cutmix=st.sampled_from([0.0, 1.0]),
)
def test_labels_are_mixed_as_pixels_are(seed, mixup, cutmix):
    """Images that show their class's number everywhere: pixels say how labels must be mixed."""
    label_B = torch.arange(4)
    image_BCHW = (
        torch.nn.functional.one_hot(label_B, 4).float()[:, :, None, None].expand(4, 4, 8, 8)
    )
    mix = Mix.draw(random.Random(seed), mixup, cutmix, 8)
    target_BK = mix.labels(label_B, 4, 0.0)
    found = mixed(image_BCHW, mix.numbers("cpu"))
    assert torch.allclose(found.mean((2, 3)), target_BK, atol=1e-5)
    if not mixup and not cutmix:
        assert mix == Mix()


def test_cutmix_boxes_of_a_map_are_those_of_its_image():
    mix_5 = Mix(0.75, (0.0, 0.5, 0.25, 0.75), 0.0).numbers("cpu")
    image_BCHW = batch(4, 16)
    found = mixed(image_BCHW, mix_5)
    box = (slice(None), slice(None), slice(0, 8), slice(4, 12))
    expected = image_BCHW.clone()
    expected[box] = image_BCHW.flip(0)[box]
    assert torch.equal(found, expected)
    pooled = torch.nn.functional.avg_pool2d(found, 2)
    assert torch.allclose(mixed(torch.nn.functional.avg_pool2d(image_BCHW, 2), mix_5), pooled)


def test_labels_are_smoothed():
    target_BK = Mix().labels(torch.tensor([1]), 4, 0.2)
    assert torch.allclose(target_BK, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


@pytest.mark.parametrize("mixup, cutmix, cut", [(0.8, 0.0, 0), (0.0, 1.0, 100), (0.8, 1.0, 50)])
def test_with_both_each_gets_half(mixup, cutmix, cut):
    found = [Mix.draw(random.Random(n), mixup, cutmix, 64).blend == 0 for n in range(100)]
    assert abs(sum(found) - cut) <= 15 * (0 < cut < 100)
