"""The stage ``look``: both passes over every image, beside one look at the whole of it.

Shapes: H x W pixels, h x w cells of the prior or pixels of a canvas, N words, R regions.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core.run import StageContext, atomic_path, atomic_write_json
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.baselines import BASELINES
from adaptive.textscale.config import TextDemoConfig
from adaptive.textscale.demo.images import demo_image
from adaptive.textscale.detectors import DetectorConfig, build_detector
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.result import AdaptiveResult
from adaptive.textscale.words import Words

PICTURES = "pictures.safetensors"


def look(config: TextDemoConfig, context: StageContext) -> None:
    """Detects the words of each image in two passes, and at one look at its own size."""
    from safetensors.numpy import save_file

    network = DetectorConfig(path=config.checkpoint, threads=config.threads)
    detector: Any = build_detector(network, context.device, "checkpoint")
    adaptive = AdaptiveDetector(
        detector, budget=config.budget.limits(), recall=config.recall, config=config.adapt
    )
    rows, kept = [], {}
    for name in context.track(config.images, desc="images", unit="image"):
        image_HW3, words = demo_image(name)
        single = BASELINES["single"](
            detector, detector, adaptive.config, side=max(image_HW3.shape[:2])
        )
        adaptive.inspect([image_HW3]), single(image_HW3)  # the first call of a size allocates
        begun = time.perf_counter()
        result = adaptive.inspect([image_HW3])
        looked = time.perf_counter()
        whole = single(image_HW3)
        seconds = {"adaptive": looked - begun, "single": time.perf_counter() - looked}
        found = {"adaptive": result.detections[0], "single": whole.detections}
        pixels = {"adaptive": 1e6 * result.megapixels, "single": whole.pixels}
        row: dict[str, Any] = {"image": name, "coverage": result.regions[0].coverage}
        row |= {"regions": len(result.regions[0]), "warnings": list(result.warnings)}
        for way, detections in found.items():
            row[way] = {
                "words": len(detections),
                "megapixels": pixels[way] / 1e6,
                "ms": 1e3 * seconds[way],
                "f": None if words is None else score([match(words, detections)]).hmean,
            }
        rows.append(row)
        kept |= {f"{name}.{key}": value for key, value in _pictures(image_HW3, words, result)}
        context.summary(_flat(row))
    with atomic_path(context.dir / PICTURES) as path:
        save_file({key: np.ascontiguousarray(value) for key, value in kept.items()}, path)
    atomic_write_json(context.dir / "look.json", rows)
    context.summary(
        {
            f"{way}.megapixels": sum(row[way]["megapixels"] for row in rows)
            for way in ("adaptive", "single")
        }
    )


def _pictures(
    image_HW3: UInt8[ndarray, "H W 3"], words: Words | None, result: AdaptiveResult
) -> list[tuple[str, ndarray]]:
    """What the report draws of an image."""
    first = result.looks[0]
    assert first.maps is not None  # a network was asked
    known_N42 = np.zeros((0, 4, 2), np.float32) if words is None else words.quad_N42[words.care_N]
    return [
        ("image_HW3", image_HW3),
        ("probability_hw", first.maps.probability_hw),
        ("padded_R4", first.regions.padded_R4),
        ("again_R", result.again[0].astype(np.uint8)),
        ("known_N42", known_N42),
        ("found_N42", result.detections[0].quad_N42),
        *((f"canvas{m}_hw3", canvas_hw3) for m, canvas_hw3 in enumerate(result.canvases)),
    ]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers of an image as the summary has them."""
    name = row["image"]
    flat = {f"{name}.regions": row["regions"], f"{name}.coverage": row["coverage"]}
    for way in ("adaptive", "single"):
        numbers = {key: value for key, value in row[way].items() if value is not None}
        flat |= {f"{name}.{way}.{key}": value for key, value in numbers.items()}
    return flat
