"""Sets of annotated images: rendered ones, mixtures, and reading them with several processes.

A set is a sequence of ``(name, image_HW3, words)``; a set can be pickled, so torch's ``DataLoader``
takes it too. Shapes: H x W pixels.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Protocol, runtime_checkable

import numpy as np

from adaptive.core.errors import UserError
from adaptive.textscale.data.config import RenderConfig
from adaptive.textscale.data.images import UnreadableImage
from adaptive.textscale.data.labelled import Sample
from adaptive.textscale.data.render import Renderer

AHEAD = 4
"""Images in work for each process, so that a slow one holds up no other."""


@runtime_checkable
class Samples(Protocol):
    """A set of images: any sequence of ``(name, image_HW3, words)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class RenderedImages(Sequence[Any]):
    """Synthetic images, rendered when they are asked for; the same each time."""

    def __init__(self, count: int, seed: int = 0, config: RenderConfig | None = None):
        """Opens fonts and photographs.

        Args:
            count: how many images there are; nothing is made before it is asked for.
            seed: of all images.
            config: what they look like.

        Raises:
            UserError: photographs or fonts that are not there.
        """
        self._length, self.seed = count, seed
        self.renderer = Renderer(config)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return f"img_{index + 1}", *self.renderer(index, self.seed)


class Mixed(Sequence[Any]):
    """Images drawn at random from several sets, each with its share.

    Which one is drawn depends on the seed and the index alone. Photographs that cannot be decoded
    are passed over.
    """

    def __init__(self, parts: Sequence[tuple[Samples, float]], count: int, seed: int = 0):
        """Mixes sets.

        Args:
            parts: sets and their shares, which need not add up to 1.
            count: how many images are drawn.
            seed: of the draws.

        Raises:
            UserError: shares that are none, or a set without images.
        """
        shares = [share for _, share in parts]
        if min(shares, default=0) < 0 or not sum(shares) > 0:
            raise UserError(f"shares={shares} must not be negative, and one must be above 0")
        self.parts = [(part, share / sum(shares)) for part, share in parts if share]
        if not all(len(part) for part, _ in self.parts):
            raise UserError("a set of images that should be mixed in is empty: set its share to 0")
        self._length, self.seed = count, seed

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rng = np.random.default_rng([self.seed, range(len(self))[index]])
        for _ in range(100):
            part, _ = self.parts[rng.choice(len(self.parts), p=[share for _, share in self.parts])]
            try:
                return part[int(rng.integers(len(part)))]
            except UnreadableImage:
                continue
        raise UserError("100 photographs in a row cannot be decoded: look at the set of images")


def stream(
    samples: Samples, indices: Iterable[int] | None = None, workers: int = 1
) -> Iterator[Sample]:
    """Samples in order, made ahead by several processes.

    Args:
        samples: a set.
        indices: which ones, in which order; may be endless. None: all.
        workers: processes; with 1 the caller's own makes them. Samples do not depend on it.

    Raises:
        UserError: by the set.
    """
    indices = range(len(samples)) if indices is None else indices
    if workers == 1:
        yield from (samples[index] for index in indices)
        return
    # A fresh interpreter: a fork of a process that runs threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (samples,)) as pool:
        rest = iter(indices)
        waiting: deque[Future[Sample]] = deque(
            pool.submit(_make, index) for index in itertools.islice(rest, AHEAD * workers)
        )
        try:
            while waiting:
                sample = waiting.popleft().result()
                waiting.extend(pool.submit(_make, index) for index in itertools.islice(rest, 1))
                yield sample
        finally:
            for future in waiting:
                future.cancel()


_samples: Samples = ()


def _begin(samples: Samples) -> None:
    import cv2

    cv2.setNumThreads(1)  # processes share the cores already
    global _samples
    _samples = samples


def _make(index: int) -> Sample:
    return _samples[index]
