"""Shards: annotated images in one tar file, written once and read by every training.

A shard is an uncompressed tar of ``NAME.jpg`` and ``gt_NAME.txt`` in ICDAR's form, coordinates in
hundredths of a pixel. So anything that reads ICDAR reads it, and
:class:`~adaptive.textscale.data.labelled.LabelledImages` fetches any image of it with one read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import cv2
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.run import atomic_path
from adaptive.textscale.data.icdar import format_words
from adaptive.textscale.words import Words


def write_shard(
    path: str | Path,
    images: Iterable[tuple[str, UInt8[ndarray, "H W 3"], Words]],
    *,
    quality: int = 90,
) -> int:
    """Writes a shard in one step, image by image.

    Args:
        path: of the ``.tar``.
        images: name, RGB image and words of each.
        quality: of the JPEG, 0 to 100.

    Returns:
        How many images there are.
    """
    count = 0
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
        for name, image_HW3, words in images:
            bgr_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR)
            done, encoded = cv2.imencode(".jpg", bgr_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality])
            assert done, name
            _add(archive, f"{name}.jpg", encoded.tobytes())
            _add(archive, f"gt_{name}.txt", format_words(words).encode())
            count += 1
    return count


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without time and owner: the same images make the same bytes
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
