"""Networks that are not there: a prior that knows the words, and a detector that reads its input.

Scenes are grey and words are green bars, so that a stand-in finds them again at any zoom by colour.
"""

from __future__ import annotations

import cv2
import numpy as np

from adaptive.textscale.words import CANONICAL, Detections, TextMaps, Words, short_sides

GREY = 40
GREEN = 250


def scene(width: int, height: int, boxes: list[tuple[float, float, float, float]]):
    """An image and its words: bars x, y, w, h."""
    image_HW3 = np.full((height, width, 3), GREY, np.uint8)
    quads = []
    for x, y, w, h in boxes:
        quad_42 = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)
        image_HW3[round(y) : round(y + h), round(x) : round(x + w)] = (0, GREEN, 0)
        quads.append(quad_42)
    quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    return image_HW3, Words(quad_N42, np.ones(len(quads), bool), ("word",) * len(quads))


def random_scene(seed: int, width: int = 640, height: int = 480, words: int = 12):
    """Words of 6 to 60 px at places that do not touch."""
    rng = np.random.default_rng(seed)
    taken = np.zeros((height, width), bool)
    boxes = []
    for _ in range(40 * words):
        h = float(np.exp(rng.uniform(np.log(6), np.log(60))))
        w = h * rng.uniform(1.5, 5)
        x, y = (int(v) for v in rng.uniform(0, (max(width - w, 1), max(height - h, 1))))
        w, h = int(w), int(h)
        around = taken[max(0, y - h) : y + 2 * h, max(0, x - h) : x + w + h]
        if x + w <= width and y + h <= height and not around.any():
            taken[y : y + h, x : x + w] = True
            boxes.append((x, y, w, h))
        if len(boxes) == words:
            break
    return scene(width, height, boxes)


class Reader:
    """Finds bars whose height in its input lies within a range, and remembers its inputs."""

    def __init__(self, least: float = 16, most: float = 100):
        self.least, self.most = least, most
        self.inputs: list[tuple[int, int]] = []

    def __call__(self, image_HW3: np.ndarray) -> Detections:
        self.inputs.append(image_HW3.shape[:2])
        bright_HW = (image_HW3[:, :, 1] > (GREEN + GREY) // 2).astype(np.uint8)
        contours, _ = cv2.findContours(bright_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        quads = []
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            if self.least <= min(w, h) <= self.most:
                quads.append([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
        quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
        return Detections(quad_N42, np.full(len(quads), 0.9, np.float32))

    @property
    def pixels(self) -> int:
        """Of all inputs so far."""
        return sum(h * w for h, w in self.inputs)


class Oracle:
    """Maps that words make: shrunk cores and exact scales, whatever the size of the input."""

    def __init__(self, words: Words, width: int, reader: Reader | None = None):
        self.words, self.width = words, width
        self.reader = reader or Reader()
        self.inputs: list[tuple[int, int]] = []

    def maps(self, image_HW3: np.ndarray) -> TextMaps:
        h, w = image_HW3.shape[:2]
        self.inputs.append((h, w))
        self.zoom = self.zoom_of(w)
        shape = (h // 4, w // 4)
        probability_hw, log_scale_hw = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        quad_N42 = self.words.quad_N42 * self.zoom
        for quad_42, side in zip(quad_N42, short_sides(quad_N42), strict=True):
            low, high = quad_42.min(0) + 0.3 * side, quad_42.max(0) - 0.3 * side
            x0, y0 = np.floor(low / 4).astype(int)
            x1, y1 = np.maximum(np.ceil(high / 4).astype(int), (x0 + 1, y0 + 1))
            probability_hw[y0:y1, x0:x1] = 0.9
            log_scale_hw[y0:y1, x0:x1] = np.log(side / CANONICAL)
        return TextMaps(probability_hw, log_scale_hw, np.zeros(shape, np.float32))

    def zoom_of(self, w: int) -> float:
        """Pixels of the copy for each of the image; its width is a multiple of 32 here."""
        return w / self.width

    def boxes(self, maps: TextMaps) -> Detections:
        """Words that the reader would find at this size."""
        quad_N42 = (self.words.quad_N42 * self.zoom).astype(np.float32)
        side_N = short_sides(quad_N42)
        found_N = (side_N >= self.reader.least) & (side_N <= self.reader.most)
        return Detections(quad_N42[found_N], np.full(found_N.sum(), 0.8, np.float32))

    @property
    def pixels(self) -> int:
        """Of all inputs so far."""
        return sum(h * w for h, w in self.inputs)
