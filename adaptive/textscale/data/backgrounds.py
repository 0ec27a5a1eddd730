"""What synthetic text is put on: photographs, their text painted over, and textures.

Shapes: H x W pixels, 3 channels; N words, 4 corners, 2 coordinates.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.textscale.data.files import IMAGES, open_files
from adaptive.textscale.data.images import UnreadableImage, decode_image
from adaptive.textscale.data.labelled import LabelledImages

SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
)
"""Photographs in scikit-image's wheel that show next to no text."""

_DRAWS = 100


class Photographs:
    """Backgrounds cut from photographs, the same for the same chance."""

    def __init__(self, path: str, gt: str | None = None):
        """Opens photographs.

        Args:
            path: folder, ``.zip`` or ``.tar``; ``skimage`` for those that scikit-image ships.
            gt: annotations of their text, which is painted over; None where they show none.

        Raises:
            UserError: there are none.
        """
        settings = "render.photographs", "render.photographs_gt"
        self._labelled = None if gt is None else LabelledImages(path, gt, settings=settings)
        if path == "skimage":
            import skimage

            self._files = open_files(Path(skimage.__file__).parent / "data", settings[0])
            self._names = [name for name in self._files.names if name in SKIMAGE]
        else:
            self._files = open_files(path, settings[0])
            self._names = self._files.ending(IMAGES)
        if not self._names:
            raise UserError(f"photographs={path} holds no images ({', '.join(IMAGES)})")
        # Neighbouring draws of a few large photographs should not decode them each time.
        self._decoded = lru_cache(maxsize=12)(self._decode)

    def cut(self, rng: np.random.Generator, height: int, width: int) -> UInt8[ndarray, "H W 3"]:
        """A random part of a random photograph, at the size that is asked for.

        Raises:
            UserError: hardly any photograph can be decoded; single ones are passed over.
        """
        import cv2

        image_HW3, quad_N42 = self._drawn(rng)
        h, w = image_HW3.shape[:2]
        zoom = rng.uniform(0.4, 1) * min(h / height, w / width)
        part_h, part_w = max(1, int(zoom * height)), max(1, int(zoom * width))
        y, x = int(rng.integers(h - part_h + 1)), int(rng.integers(w - part_w + 1))
        part_HW3 = image_HW3[y : y + part_h, x : x + part_w]
        part_HW3 = inpainted(part_HW3, quad_N42 - np.array([x, y], np.float32))
        way = cv2.INTER_AREA if zoom > 1 else cv2.INTER_CUBIC
        found_HW3 = cv2.resize(part_HW3, (width, height), interpolation=way)
        # Only where no text can be left that would be mirrored.
        return found_HW3[:, ::-1].copy() if not len(quad_N42) and rng.random() < 0.5 else found_HW3

    def _drawn(
        self, rng: np.random.Generator
    ) -> tuple[UInt8[ndarray, "H W 3"], Float32[ndarray, "N 4 2"]]:
        for _ in range(_DRAWS):
            try:
                return self._decoded(int(rng.integers(len(self._labelled or self._names))))
            except UnreadableImage:
                continue
        raise UserError(
            f"photographs={self._files.path}: {_DRAWS} in a row cannot be decoded, name others"
        )

    def _decode(self, index: int) -> tuple[UInt8[ndarray, "H W 3"], Float32[ndarray, "N 4 2"]]:
        if self._labelled is not None:
            _, image_HW3, words = self._labelled[index]
            return image_HW3, words.quad_N42
        name = self._names[index]
        image_HW3 = decode_image(self._files.read(name), f"{self._files.path}{os.sep}{name}")
        return image_HW3, np.zeros((0, 4, 2), np.float32)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_decoded"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._decoded = lru_cache(maxsize=12)(self._decode)


def inpainted(
    image_HW3: UInt8[ndarray, "H W 3"], quad_N42: Float32[ndarray, "N 4 2"]
) -> UInt8[ndarray, "H W 3"]:
    """An image whose words are filled with what surrounds them.

    Args:
        image_HW3: the image.
        quad_N42: words in its pixels; each is covered with a margin of a quarter of its height.
    """
    import cv2

    mask_HW = np.zeros(image_HW3.shape[:2], np.uint8)
    for quad_42 in quad_N42:
        corner_42 = quad_42.round().astype(np.int32)
        margin = 2 * (2 + round(0.25 * min(cv2.minAreaRect(quad_42)[1])))
        cv2.fillPoly(mask_HW, [corner_42], 255)
        cv2.polylines(mask_HW, [corner_42], True, 255, margin)
    if not mask_HW.any():
        return image_HW3
    # What is filled in is smooth: half the resolution does, in a fifth of the time.
    h, w = mask_HW.shape
    half = (max(1, w // 2), max(1, h // 2))
    small_HW3 = cv2.resize(image_HW3, half, interpolation=cv2.INTER_AREA)
    small_HW = cv2.resize(mask_HW, half, interpolation=cv2.INTER_AREA)
    filled_HW3 = cv2.inpaint(small_HW3, (small_HW > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    filled_HW3 = cv2.resize(filled_HW3, (w, h), interpolation=cv2.INTER_LINEAR)
    soft_HW1 = (cv2.GaussianBlur(mask_HW, (0, 0), 1)[..., None] / 255).astype(np.float32)
    return (image_HW3 + soft_HW1 * (filled_HW3.astype(np.float32) - image_HW3)).astype(np.uint8)


def texture(rng: np.random.Generator, height: int, width: int) -> UInt8[ndarray, "H W 3"]:
    """A surface: a colour that drifts, grain of several sizes, sometimes stripes and shapes."""
    import cv2

    base_3 = rng.uniform(20, 235, 3) if rng.random() < 0.6 else np.repeat(rng.uniform(20, 235), 3)
    corner_223 = np.clip(base_3 + rng.normal(0, 25, (2, 2, 3)), 0, 255).astype(np.float32)
    image_HW3 = cv2.resize(corner_223, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = rng.uniform(0, 22)
    relief_HW = np.zeros((height, width), np.float32)
    for cells in (4, 12, 40, 120):
        grain_hw = rng.normal(0, strength * rng.random(), (cells, cells)).astype(np.float32)
        relief_HW += cv2.resize(grain_hw, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        angle, period = rng.uniform(0, np.pi), rng.uniform(12, 120)
        y_H1 = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
        x_W = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle))
        dark_HW = (x_W + y_H1) % np.float32(period) < period / 2
        relief_HW += np.float32(rng.uniform(8, 40)) * dark_HW
    image_HW3 += relief_HW[..., None]
    image_HW3 = image_HW3.clip(0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 7)) if rng.random() < 0.5 else 0):
        colour = tuple(int(c) for c in np.clip(base_3 + rng.normal(0, 60, 3), 0, 255))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = int(rng.integers(8, width // 2)), int(rng.integers(8, height // 2))
        thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 8))
        if rng.random() < 0.6:
            cv2.rectangle(image_HW3, (x, y), (x + w, y + h), colour, thick)
        else:
            turn = float(rng.uniform(0, 180))
            cv2.ellipse(image_HW3, (x, y), (w // 2, h // 2), turn, 0, 360, colour, thick)
    return image_HW3
