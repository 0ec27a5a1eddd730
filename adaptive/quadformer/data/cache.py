"""Images decoded once: squares of bytes in a file that trainings and evaluations share.

The cache lies in ``$ADAPTIVE_CACHE/images`` (``~/.cache/adaptive/images``), named by what it was
made from. It may be removed at any time: who needs it makes it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path, digest
from adaptive.quadformer.data.sources import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

Track = Callable[[Iterable[Any], int], Iterable[Any]]
LABELS = "labels.npy"
PIXELS = "pixels.npy"


def cache_root() -> Path:
    """Where decoded images are kept."""
    root = Path(os.environ.get("ADAPTIVE_CACHE") or Path.home() / ".cache" / "adaptive")
    return root / "images"


def decode(
    source: ImageSource,
    size: int,
    *,
    workers: int | None = None,
    track: Track = lambda items, _: items,
    root: Path | None = None,
) -> Path:
    """The directory of the decoded images of a source, made now if it is not there.

    ``pixels.npy`` holds bytes [images, 3, size, size], ``labels.npy`` numbers of the source's
    classes [images]. An image is resized so that its short side is ``size`` (bicubic, antialiased)
    and cropped at its centre; one of that size stays as it is.

    Args:
        source: of the images.
        size: side of the squares in pixels.
        workers: threads; None: as many as there are cores.
        track: progress over the images.
        root: of the cache; None: ``cache_root()``.

    Raises:
        UserError: an image cannot be decoded.
    """
    home = (root or cache_root()) / digest([source.identity(), size])[:32]
    home.parent.mkdir(parents=True, exist_ok=True)
    # Trainings that start side by side wait for the first to decode.
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            with atomic_path(home) as temporary:
                temporary.mkdir()
                _fill(temporary, source, size, workers, track)
    return home


def _fill(home: Path, source: ImageSource, size: int, workers: int | None, track: Track) -> None:
    count = len(source)
    shape = (count, 3, size, size)
    pixels_N3SS = np.lib.format.open_memmap(home / PIXELS, "w+", np.uint8, shape)
    labels_N = np.zeros(count, np.int64)

    def work(index: int) -> None:
        image, labels_N[index] = source.load(index)
        pixels_N3SS[index] = np.asarray(square(image, size)).transpose(2, 0, 1)

    # Decoders run outside Python's lock, so threads do.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            for _ in track(pool.map(work, range(count)), count):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if labels_N.min() < 0 or labels_N.max() >= len(source.classes):
        raise UserError(
            f"{source.name} has labels {labels_N.min()} to {labels_N.max()}, but "
            f"{len(source.classes)} classes: choose a split that is labelled"
        )
    pixels_N3SS.flush()
    np.save(home / LABELS, labels_N)


def square(image: Image, size: int) -> Image:
    """The centre of an image whose short side is resized to ``size``."""
    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    if scale != 1:
        sides = (max(size, round(width * scale)), max(size, round(height * scale)))
        image = image.resize(sides, Resampling.BICUBIC)
        width, height = sides
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
