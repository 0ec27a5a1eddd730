"""Photographs with annotated words, from folders and archives.

Shapes: H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.core.run import say
from adaptive.textscale.data.files import IMAGES, TEXTS, by_sample, open_files
from adaptive.textscale.data.icdar import FORMATS, read_words
from adaptive.textscale.data.images import UnreadableImage, decode_image, read_image
from adaptive.textscale.words import Words

Sample = tuple[str, UInt8[ndarray, "_ _ 3"], Words]


# Sequences of Any: a checker of types would ask a sequence of samples for one, and so decode it.
class LabelledImages(Sequence[Any]):
    """``(name, image_HW3, words)`` of each annotated photograph, decoded when it is asked for.

    Indexing raises :class:`~adaptive.textscale.data.images.UnreadableImage` for a photograph that
    cannot be decoded; iterating names it, leaves it out and counts it in ``unreadable``.

    Attributes:
        names: of the samples, as ``img_1``.
        words: their annotations, read at once, so that a mistake in them shows before work begins.
        unreadable: names of photographs that the last iteration left out.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        gt: str | os.PathLike[str] | None = None,
        format: str = "icdar15",
        settings: tuple[str, str] = ("images", "gt"),
    ):
        """Opens a set.

        Args:
            images: folder, ``.tar`` or ``.zip`` of ``img_N.jpg`` (any name, any common format).
            gt: folder, ``.tar`` or ``.zip`` of ``gt_img_N.txt``; None: beside the photographs.
            format: of the annotations, ``icdar15`` or ``mlt17``.
            settings: what names the two, for messages.

        Raises:
            UserError: nothing is there, annotations are wrong, or photographs have none.
        """
        FORMATS[format]
        self._images = open_files(images, settings[0])
        self._gt = self._images if gt is None else open_files(gt, settings[1])
        self._file = by_sample(self._images, IMAGES)
        texts = by_sample(self._gt, TEXTS, ["gt_"])
        self.names = [name for name in self._file if name in texts]
        self.unreadable: list[str] = []
        if not self._file:
            raise UserError(f"{settings[0]}={images} holds no images ({', '.join(IMAGES)})")
        lacking = [name for name in self._file if name not in texts]
        if lacking:
            raise UserError(
                f"{settings[gt is not None]}={self._gt.path} has no gt_{lacking[0]}.txt for "
                f"{self._file[lacking[0]]} ({len(lacking)} such): add an empty file for an image "
                "without text"
            )
        self.words = [
            read_words(self._gt.read(texts[name]), format, name=f"{self._gt.path}/{texts[name]}")
            for name in self.names
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name = self.names[index]
        file = self._file[name]
        image_HW3 = decode_image(read_image(self._images, file), f"{self._images.path}/{file}")
        return name, image_HW3, self.words[index]

    def __iter__(self) -> Iterator[Sample]:
        self.unreadable = []
        for index, name in enumerate(self.names):
            try:
                sample = self[index]
            except UnreadableImage as problem:
                self.unreadable.append(name)
                say(f"left out: {problem}")
                continue
            yield sample

    def identity(self) -> list[Any]:
        """JSON-able: changes when the files do, as far as their sizes tell."""
        return [self._images.identity(), self._gt.identity()]
