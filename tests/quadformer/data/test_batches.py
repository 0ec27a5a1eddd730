"""Batches follow from seed and step alone, and processes share them without overlap."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_images import make_images
from torch.utils._python_dispatch import TorchDispatchMode

from adaptive.quadformer.data import Batches, ImageSet


@given(images=st.integers(8, 60), seed=st.integers(0, 5), world=st.sampled_from([1, 2, 4]))
def test_processes_share_an_epoch(images, seed, world):
    parts = [Batches(images, 8, seed, rank, world) for rank in range(world)]
    steps = range(3 * parts[0].per_epoch)
    batches = [torch.cat([part.indices(step) for part in parts]).tolist() for step in steps]
    alone = Batches(images, 8, seed)
    assert batches == [alone.indices(step).tolist() for step in steps]
    for epoch in range(3):
        seen = sum(batches[epoch * alone.per_epoch : (epoch + 1) * alone.per_epoch], [])
        assert len(set(seen)) == len(seen) == images // 8 * 8


def test_epochs_and_seeds_differ():
    batches = Batches(64, 64, 0)
    assert batches.indices(0).tolist() != batches.indices(1).tolist()
    assert batches.indices(0).tolist() != Batches(64, 64, 1).indices(0).tolist()


@given(seed=st.integers(0, 100), step=st.integers(0, 10_000))
def test_budgets_are_the_same_on_all_ranks(seed, step):
    choices = [64, 100, 145, 256]
    found = {Batches(64, 8, seed, rank, 4).tokens(step, choices) for rank in range(4)}
    assert len(found) == 1 and found <= set(choices)


def test_every_budget_gets_its_share_of_steps():
    batches = Batches(64, 8, 0)
    drawn = [batches.tokens(step, [1, 2, 3, 4]) for step in range(2000)]
    assert all(440 < drawn.count(tokens) < 560 for tokens in (1, 2, 3, 4))


def test_augmentation_differs_between_ranks_and_steps_and_not_between_runs():
    def draw(step, rank):
        return float(torch.rand(1, generator=Batches(64, 8, 0, rank, 2).generator(step, "cpu")))

    assert draw(0, 0) == draw(0, 0) and len({draw(0, 0), draw(0, 1), draw(1, 0)}) == 3


def test_reading_ahead_changes_nothing():
    images = make_images(24, maps=True)
    on_disk = ImageSet(
        np.asarray(images.pixels), images.label_N, images.classes, np.asarray(images.map_Nhw)
    )
    batches = Batches(24, 6, 0)
    pairs = list(
        zip(batches.read(images, range(3, 9)), batches.read(on_disk, range(3, 9)), strict=True)
    )
    assert [step for (step, _), _ in pairs] == list(range(3, 9))
    for (one, a), (two, b) in pairs:
        assert one == two
        for name in vars(a):
            assert torch.equal(getattr(a, name), getattr(b, name))


def test_an_epochs_order_goes_to_the_device_once():
    """A copy from the host at each step would make it wait for the device."""
    pixels = torch.empty(24, 3, 4, 4, dtype=torch.uint8, device="meta")
    images = ImageSet(pixels, torch.empty(24, dtype=torch.long, device="meta"), ["one"])
    copies = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if function is torch.ops.aten._to_copy.default and args[0].device != found.device:
                copies.append(args[0].shape)
            return found

    with Watch():
        steps = [step for step, _ in Batches(24, 8, seed=7).read(images, range(6))]
    assert steps == [*range(6)] and copies == [(24,), (24,)]  # two epochs
