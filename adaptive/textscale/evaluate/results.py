"""Files of results: ``res_img_N.txt``, one line ``x1,y1,...,x4,y4[,score][,text]`` a detection.

Shapes: 4 corners, 2 coordinates in pixels.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path, atomic_write_text
from adaptive.textscale.data.files import TEXTS, by_sample, open_files
from adaptive.textscale.data.icdar import coordinates, format_quad, lines
from adaptive.textscale.words import Detections


def read_detections(content: bytes, name: str) -> Detections:
    """The detections in a file of results.

    A ninth field that is a number from 0 to 1 is the score, all else is text, which is not kept;
    without a score it is 1.

    Args:
        content: of the file, UTF-8 with or without a byte-order mark.
        name: of the file in messages.

    Raises:
        UserError: a line has fewer than eight fields, or coordinates that are not numbers.
    """
    quads: list[list[float]] = []
    scores: list[float] = []
    for number, line in lines(content, name):
        fields = line.split(",", 9)
        if len(fields) < 8:
            raise UserError(
                f"{name}:{number} has {len(fields)} fields, not the 8 to 10 of "
                "x1,y1,x2,y2,x3,y3,x4,y4[,score][,text]: mend the line"
            )
        quads.append(coordinates(fields[:8], name, number))
        scores.append(_score(fields[8]) if len(fields) > 8 else 1.0)
    quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
    return Detections(quad_N42, np.array(scores, np.float32))


def read_results(path: str | os.PathLike[str]) -> dict[str, Detections]:
    """Detections by sample (``img_1``) from a folder, a ``.zip`` or a ``.tar``.

    Raises:
        UserError: it is not there, holds no ``.txt``, or a file in it is wrong.
    """
    files = open_files(path, "results")
    # Annotations can be read as results too: they find themselves.
    samples = by_sample(files, TEXTS, ["res_", "gt_"])
    if not samples:
        raise UserError(f"results={path} holds no .txt files: one res_NAME.txt for each image")
    return {
        sample: read_detections(files.read(file), f"{files.path}/{file}")
        for sample, file in samples.items()
    }


def format_detections(found: Detections, *, scores: bool = False) -> str:
    """Detections as a file of results.

    The competition's script takes whole numbers and corners in clockwise order only, so that is
    what is written.

    Args:
        found: detections.
        scores: whether each line ends with the detection's score.
    """
    rows = []
    for quad_42, score in zip(found.quad_N42, found.score_N, strict=True):
        x_4, y_4 = quad_42.astype(np.float64).T
        doubled_area = (x_4 * np.roll(y_4, -1) - np.roll(x_4, -1) * y_4).sum()
        clockwise_42 = quad_42 if doubled_area >= 0 else quad_42[::-1]
        rows.append(format_quad(clockwise_42, 0) + (f",{float(score):.4f}" if scores else ""))
    return "".join(f"{row}\n" for row in rows)


def write_results(
    path: str | os.PathLike[str], results: Mapping[str, Detections], *, scores: bool = False
) -> None:
    """Writes ``res_NAME.txt`` for each sample, into a folder or, for ``.zip``, an archive.

    Args:
        path: folder (made where it is missing) or archive.
        results: detections by sample, as ``img_1``.
        scores: whether lines end with scores, which the competition's script refuses.
    """
    path = Path(path)
    texts = {
        f"res_{sample}.txt": format_detections(found, scores=scores)
        for sample, found in results.items()
    }
    if path.suffix.lower() == ".zip":
        with (
            atomic_path(path) as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, text in texts.items():
                archive.writestr(name, text)
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write_text(path / name, text)


def _score(field: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(field)
        if 0 <= value <= 1:
            return value
    return 1.0
