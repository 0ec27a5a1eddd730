"""Words of all images of a folder: JSON, ICDAR's text files and overlays."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_write_json, say, track
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.data.files import IMAGES, open_files
from adaptive.textscale.data.images import UnreadableImage, read_image
from adaptive.textscale.detect.overlay import overlay, save_picture
from adaptive.textscale.detect.reading import read_bounded
from adaptive.textscale.evaluate.results import write_results
from adaptive.textscale.result import AdaptiveResult
from adaptive.textscale.words import Detections

MAX_PIXELS = 150_000_000


@dataclass
class FolderReport:
    """What became of a folder.

    Attributes:
        images: number of images that were looked at.
        words: number of words found.
        megapixels: of all inputs of the networks, padding included.
        seconds: wall time of detection, reading and writing aside.
        found: of each image its file, width and height in pixels, and number of words.
        skipped: name of each image that could not be read, and why.
        warnings: name of each image that the prior does not cover, and what to do.
    """

    images: int = 0
    words: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)


def detect_folder(
    detector: AdaptiveDetector,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overlays: bool = True,
    max_pixels: int = MAX_PIXELS,
    track: Callable[..., Iterable[Any]] = track,
) -> FolderReport:
    """Finds the words of every image.

    Writes ``json/NAME.json``, ``icdar/res_NAME.txt``, ``overlays/NAME.jpg`` and ``index.json``;
    images of folders below ``input`` go to folders of the same names. NAME has no suffix where that
    is clear: of ``a.jpg`` and ``a.png`` it has.
    An image that cannot be read is named, left out and counted.

    Args:
        detector: finds the words.
        input: folder, ``.zip`` or ``.tar`` of images.
        output: folder to write to.
        overlays: whether pictures are drawn.
        max_pixels: an image of more is decoded smaller (JPEG) or left out.
        track: shows progress.

    Raises:
        UserError: there are no images, or the output is a file.
    """
    files = open_files(input, "input")
    names = _outputs(files.ending(IMAGES))
    if not names:
        raise UserError(f"input={input} holds no images ({', '.join(IMAGES)})")
    output = Path(output).expanduser()
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file: name a folder")
    report = FolderReport()
    for file, sample in track(names.items(), total=len(names), desc="detect", unit="image"):
        try:
            image_HW3, shrink = read_bounded(read_image(files, file), file, max_pixels)
        except UnreadableImage as problem:
            report.skipped[file] = str(problem)
            say(f"left out: {problem}")
            continue
        result = detector.inspect([image_HW3])
        found = result.detections[0]
        full = Detections((found.quad_N42 * np.float32(shrink)), found.score_N)
        height, width = image_HW3.shape[:2]
        size = (width * shrink, height * shrink)
        atomic_write_json(output / "json" / f"{sample}.json", _record(file, size, full, result))
        write_results((output / "icdar" / sample).parent, {sample.name: full})
        if overlays:
            again = tuple(result.again[0].tolist())
            picture_hw3 = overlay(image_HW3, found, result.regions[0], again)
            picture = output / "overlays" / f"{sample}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            save_picture(picture_hw3, str(picture))
        width, height = size
        report.found[sample] = {
            "image": file,
            "width": width,
            "height": height,
            "words": len(found),
        }
        report.images += 1
        report.words += len(found)
        report.megapixels += result.megapixels
        report.seconds += sum(result.seconds.values())
        if result.warnings:
            report.warnings[file] = list(result.warnings)
    atomic_write_json(output / "index.json", report)
    return report


def _outputs(files: Sequence[str]) -> dict[str, PurePosixPath]:
    """What each image's results are called, by its name."""
    bare = {file: PurePosixPath(file).with_suffix("") for file in files}
    often = Counter(bare.values())
    return {file: name if often[name] == 1 else PurePosixPath(file) for file, name in bare.items()}


def _record(
    file: str, size: tuple[int, int], found: Detections, result: AdaptiveResult
) -> dict[str, Any]:
    """What is written about an image."""
    words = [
        {"quad": np.round(quad_42.astype(float), 2).tolist(), "score": round(float(score), 4)}
        for quad_42, score in zip(found.quad_N42, found.score_N, strict=True)
    ]
    width, height = size
    return {"image": file, "width": width, "height": height, "words": words} | {
        "spent": result.to_json()
    }
