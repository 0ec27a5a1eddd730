"""Training samples: each a function of the seed and its number, whoever makes it.

Decoding takes longer than all else, and a canvas of chips wants several images. So each run of
``BLOCK`` samples, which is what one process makes for a step, is made of ``POOL`` images, drawn for
it at random; a process decodes each of them once.

Shapes: 3 colours, 5 maps of targets, side x side pixels, h x w cells, S sources, I images.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator

from adaptive.core.errors import UserError
from adaptive.core.run import say, stage_seed
from adaptive.textscale.data.images import UnreadableImage
from adaptive.textscale.data.samples import Samples as AnnotatedImages
from adaptive.textscale.train.colours import recolour
from adaptive.textscale.train.packed import draw_canvas
from adaptive.textscale.train.settings import SampleConfig
from adaptive.textscale.train.targets import targets
from adaptive.textscale.train.views import draw_map, show
from adaptive.textscale.words import Words

BLOCK = 64
"""Consecutive samples that share images."""

POOL = 32
"""Images that they are made of."""

KEPT = 256 * 2**20
"""Bytes of decoded images that a process keeps; the images of a block if they are more."""


@dataclass(frozen=True)
class Source:
    """A set of annotated images.

    Attributes:
        images: ``(name, image_HW3, words)`` by number.
        share: of the samples, in proportion to other sources'.
        anchors: for each image how often each of its words is to be seen, in proportion; None: all
            that are to be cared about, the same. Images are drawn in proportion to their sums.
    """

    images: AnnotatedImages
    share: float = 1.0
    anchors: list[Float[ndarray, " _"]] | None = None


@dataclass
class Samples(Sequence[Any]):
    """Samples by number: an RGB image [3, side, side] in bytes, and its targets [5, h, w].

    Attributes:
        sources: of the images.
        config: how samples are made.
        seed: of all that is random.
        total: how many there are.
    """

    sources: list[Source]
    config: SampleConfig
    seed: int
    total: int
    _kept: OrderedDict[tuple[int, int], Any] = field(default_factory=OrderedDict, repr=False)
    _unreadable: set[tuple[int, int]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._share_S = _shares(np.array([source.share for source in self.sources]))
        # Added up once: a set may have many thousands of images.
        self._share_SI = [
            None if source.anchors is None else _shares(np.array([a.sum() for a in source.anchors]))
            for source in self.sources
        ]
        self._pool: tuple[int, list[tuple[int, int]]] = -1, []

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        image_HW3, words = self.annotated(index)
        side = self.config.side
        image_3HW = np.empty((3, side, side), np.uint8)
        cv2.split(image_HW3, list(image_3HW))  # into the rows of the array
        return image_3HW, targets(words, side, side).stacked()

    def annotated(self, index: int) -> tuple[UInt8[ndarray, "side side 3"], Words]:
        """A sample's image, side x side pixels, and its words."""
        rng = np.random.default_rng(stage_seed(self.seed, f"sample {index}"))
        if rng.random() < self.config.packed:
            image_HW3, words = draw_canvas(rng, lambda: self._draw(rng, index)[:2], self.config)
        else:
            image_HW3, words, anchors = self._draw(rng, index)
            height, width = image_HW3.shape[:2]
            map_23 = draw_map(rng, words, height, width, self.config, anchors)
            image_HW3, words = show(image_HW3, words, map_23, self.config.side)
        return recolour(rng, image_HW3, self.config), words

    def _draw(self, rng: Generator, index: int) -> tuple[ndarray, Words, ndarray | None]:
        """An image of those of a sample's block, its words, and how often each is to be seen."""
        pool = self._images(index // BLOCK)
        while pool:
            key = pool[int(rng.integers(len(pool)))]
            if self._decode(key):
                break
            pool = [other for other in pool if other != key]
        else:
            raise UserError(f"{POOL} images in a row cannot be decoded: look at data.train")
        number, image = key
        anchors = self.sources[number].anchors
        return *self._kept[key], None if anchors is None else anchors[image]

    def _images(self, block: int) -> list[tuple[int, int]]:
        """Source and number of each image that a block of samples is made of."""
        if self._pool[0] != block:
            rng = np.random.default_rng(stage_seed(self.seed, f"images {block}"))
            numbers = rng.choice(len(self.sources), POOL, p=self._share_S).tolist()
            images = [
                int(rng.choice(len(self.sources[number].images), p=self._share_SI[number]))
                for number in numbers
            ]
            self._pool = block, list(zip(numbers, images, strict=True))
        return self._pool[1]

    def _decode(self, key: tuple[int, int]) -> bool:
        """Sees to it that an image is among those that are kept; False if it cannot be read."""
        if key in self._unreadable:
            return False
        if key not in self._kept:
            number, image = key
            try:
                self._kept[key] = self.sources[number].images[image][1:]
            except UnreadableImage as problem:
                self._unreadable.add(key)
                say(f"left out: {problem}")
                return False
            size = sum(image_HW3.nbytes for image_HW3, _ in self._kept.values())
            while size > KEPT and len(self._kept) > POOL:
                size -= self._kept.popitem(last=False)[1][0].nbytes
        self._kept.move_to_end(key)
        return True


def _shares(weight_K: ndarray) -> Float[ndarray, " K"]:
    """Weights as shares of their sum; equal ones where there is nothing to weigh."""
    total = weight_K.sum()
    return weight_K / total if total else np.full(len(weight_K), 1 / len(weight_K))


def batches(samples: Samples, batch: int, workers: int, first: int, *, pin: bool = False) -> Any:
    """Iterates over batches ``(image_B3HW, target_B5hw)`` of tensors, from a step on.

    Args:
        samples: ``total`` a multiple of ``batch``.
        batch: samples of a step.
        workers: processes that make samples ahead; 0: none but this one.
        first: step to begin with.
        pin: put batches where a GPU fetches them quickly.
    """
    from torch.utils.data import DataLoader

    return DataLoader(
        samples,  # type: ignore[arg-type]
        batch_size=batch,
        sampler=range(first * batch, len(samples)),
        num_workers=workers,
        pin_memory=pin,
        drop_last=True,
        # A batch is 100 MB of shared memory; one in work and one done keep a process busy.
        prefetch_factor=2 if workers else None,
        worker_init_fn=_alone,
        # Forked, workers would inherit locks of threads that do not exist in them.
        multiprocessing_context="forkserver" if workers else None,
    )


def _alone(_: int) -> None:
    cv2.setNumThreads(0)  # workers are as many as there are cores already
