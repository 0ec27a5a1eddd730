"""How fast detections are scored by ICDAR 2015's rules: at once, against a loop over pairs.

    python experiments/bench/textscale_scoring.py        # a minute on one core

The loop asks shapely for the overlap of every pair of a word and a detection, as the competition's
own script does with another library. Both find the same matches.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shapely.geometry import Polygon

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout without an install

from adaptive.textscale.evaluate.by_height import recall_by_height  # noqa: E402
from adaptive.textscale.evaluate.icdar import match, score  # noqa: E402
from adaptive.textscale.evaluate.tiou import tiou  # noqa: E402
from adaptive.textscale.words import Detections, Words  # noqa: E402


def image_of(rng: np.random.Generator) -> tuple[Words, Detections]:
    """About as many words as a photograph of the competition has, with detections near most."""
    count = int(rng.integers(1, 25))
    centre_N2 = rng.uniform(0, 1, (count, 1, 2)) * [1280, 720]
    height_N = np.exp(rng.uniform(np.log(8), np.log(80), count))
    corner_N42 = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.5 * height_N[:, None, None]
    corner_N42 = corner_N42 * [3, 1]
    angle_N = rng.normal(0, 0.2, count)
    cos_N, sin_N = np.cos(angle_N), np.sin(angle_N)
    turn_N22 = np.stack([np.stack([cos_N, sin_N], -1), np.stack([-sin_N, cos_N], -1)], 1)
    quad_N42 = (corner_N42 @ turn_N22 + centre_N2).round().astype(np.float32)
    words = Words(quad_N42, rng.random(count) < 0.4, ("word",) * count)
    noise_N42 = rng.normal(0, 0.06, quad_N42.shape) * height_N[:, None, None]
    found_D42 = (quad_N42 + noise_N42)[rng.random(count) < 0.8].round().astype(np.float32)
    return words, Detections(found_D42, np.ones(len(found_D42), np.float32))


def loop(words: Words, found: Detections) -> tuple[int, int, int]:
    """Matches, words and detections that count, pair by pair."""
    gt = [(Polygon(quad), cares) for quad, cares in zip(words.quad_N42, words.care_N, strict=True)]
    gt = [(polygon, cares) for polygon, cares in gt if polygon.is_valid]
    det = [polygon for polygon in map(Polygon, found.quad_N42) if polygon.is_valid]
    shared = [[d.intersection(word).area for d in det] for word, _ in gt]
    ignored = {
        d
        for (_, cares), row in zip(gt, shared, strict=True)
        for d, area in enumerate(row)
        if not cares and area / det[d].area > 0.5
    }
    used: set[int] = set()
    for (word, cares), row in zip(gt, shared, strict=True):
        for d, area in enumerate(row):
            iou = area / (det[d].area + word.area - area)
            if cares and d not in ignored and d not in used and iou > 0.5:
                used.add(d)
                break
    return len(used), sum(cares for _, cares in gt), len(det) - len(ignored)


def seconds(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    images = [image_of(rng) for _ in range(arguments.images)]
    matches = [match(*image) for image in images]
    found = score(matches)
    counts = np.array([loop(*image) for image in images]).sum(0)
    assert tuple(counts) == (found.matches, found.care_words, found.care_detections)
    ways = {
        "match": lambda: score(match(*image) for image in images),
        "loop over pairs": lambda: [loop(*image) for image in images],
        "TIoU": lambda: tiou((*image, m) for image, m in zip(images, matches, strict=True)),
        "by height": lambda: recall_by_height(
            (words, m) for (words, _), m in zip(images, matches, strict=True)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
    total = sum(len(words) for words, _ in images)
    print(f"{len(images)} images, {total} words, medians of {arguments.rounds} rounds")
    for name, values in times.items():
        print(f"{name}: {statistics.median(values):.2f} s")
    print(f"hmean {found.hmean:.3f}, the same from both")


if __name__ == "__main__":
    main()
