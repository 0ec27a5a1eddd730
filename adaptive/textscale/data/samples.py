"""Sets of annotated images: rendered ones, and reading them with several processes.

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

from adaptive.core.run import digest
from adaptive.textscale.data.config import RenderConfig
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
        self.unreadable: list[str] = []  # none ever is
        self.renderer = Renderer(config)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return f"img_{index + 1}", *self.renderer(index, self.seed)

    def identity(self) -> list[Any]:
        """JSON-able: changes when the images do."""
        return ["rendered", len(self), self.seed, digest(self.renderer.config)]


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
