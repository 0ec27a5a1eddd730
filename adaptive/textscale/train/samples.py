"""Training samples: each a function of the seed and its number, whoever makes it.

Shapes: 3 colours, 5 maps of targets, side x side pixels, h x w cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from numpy.random import Generator

from adaptive.core.run import stage_seed
from adaptive.textscale.train.colours import recolour
from adaptive.textscale.train.packed import draw_canvas
from adaptive.textscale.train.settings import SampleConfig
from adaptive.textscale.train.targets import targets
from adaptive.textscale.train.views import draw_map, show
from adaptive.textscale.words import Words


@dataclass(frozen=True)
class Source:
    """A set of annotated images.

    Attributes:
        images: ``(name, image_HW3, words)`` by number.
        share: of the samples, in proportion to other sources'.
        anchors: for each image how often each of its words is to be seen, in proportion; None: all
            that are to be cared about, the same. Images are drawn in proportion to their sums.
    """

    images: Sequence[tuple[str, UInt8[ndarray, "H W 3"], Words]]
    share: float = 1.0
    anchors: list[Float[ndarray, " N"]] | None = None


@dataclass
class Samples(Sequence[tuple[UInt8[ndarray, "3 side side"], Float32[ndarray, "5 h w"]]]):
    """Samples by number: an RGB image and its targets.

    Attributes:
        sources: of the images.
        config: how samples are made.
        seed: of all that is random.
        total: how many there are.
        kept: decoded images that each process keeps; a canvas shows chips of a dozen,
            so that on 400 photographs 500 make 74 samples in a CPU's second, and 128 make 44.
    """

    sources: list[Source]
    config: SampleConfig
    seed: int
    total: int
    kept: int = 128
    _kept: OrderedDict[tuple[int, int], Any] = field(default_factory=OrderedDict, repr=False)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: Any) -> Any:
        image_HW3, words = self.annotated(index)
        side = self.config.side
        return (
            np.ascontiguousarray(image_HW3.transpose(2, 0, 1)),
            targets(words, side, side).stacked(),
        )

    def annotated(self, index: int) -> tuple[UInt8[ndarray, "side side 3"], Words]:
        """A sample's image, side x side pixels, and its words."""
        rng = np.random.default_rng(stage_seed(self.seed, f"sample {index}"))
        if rng.random() < self.config.packed:
            image_HW3, words = draw_canvas(rng, lambda: self._draw(rng)[:2], self.config)
        else:
            image_HW3, words, anchors = self._draw(rng)
            height, width = image_HW3.shape[:2]
            map_23 = draw_map(rng, words, height, width, self.config, anchors)
            image_HW3, words = show(image_HW3, words, map_23, self.config.side)
        return recolour(rng, image_HW3, self.config), words

    def _draw(self, rng: Generator) -> tuple[ndarray, Words, ndarray | None]:
        """An image, its words, and how often each is to be seen."""
        share_S = np.array([source.share for source in self.sources])
        number = int(rng.choice(len(self.sources), p=share_S / share_S.sum()))
        source = self.sources[number]
        if source.anchors is None:
            image, anchors = int(rng.integers(len(source.images))), None
        else:
            weight_I = np.array([each.sum() for each in source.anchors])
            image = int(rng.choice(len(source.images), p=weight_I / weight_I.sum()))
            anchors = source.anchors[image]
        key = (number, image)
        if key not in self._kept:
            self._kept[key] = source.images[image][1:]
            if len(self._kept) > self.kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        image_HW3, words = self._kept[key]
        return image_HW3, words, anchors


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
        prefetch_factor=4 if workers else None,
        worker_init_fn=_alone,
        # Forked, workers would inherit locks of threads that do not exist in them.
        multiprocessing_context="forkserver" if workers else None,
    )


def _alone(_: int) -> None:
    cv2.setNumThreads(0)  # workers are as many as there are cores already
