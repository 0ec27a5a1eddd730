"""The stages of a ``textscale_render`` run: render -> report."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import (
    Stage,
    StageContext,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    digest,
)
from adaptive.textscale.data.config import TextRenderConfig
from adaptive.textscale.data.icdar import format_words, read_words
from adaptive.textscale.data.samples import RenderedImages, stream
from adaptive.textscale.words import short_sides

MARK = "render.json"
"""In the output: what its images were rendered with."""


def render_stages(config: TextRenderConfig) -> list[Stage]:
    """The stages of a ``textscale_render`` run, in order.

    Raises:
        UserError: the output holds something else.
    """
    _output(config)
    wanted = [config.output, config.images, config.quality, config.render]
    return [
        Stage("render", partial(render, config), (), [*wanted, config.seed]),
        Stage("report", partial(_report, config), ("render",), [config]),
    ]


def render(config: TextRenderConfig, context: StageContext) -> None:
    """Writes ``img_N.jpg`` and ``gt_img_N.txt`` into the output; those that are there are kept."""
    import cv2

    output = _output(config)
    atomic_write_json(output / MARK, _own(config))
    samples = RenderedImages(config.images, config.seed, config.render)
    # The annotation is written last: where it is, the image is too.
    todo = [i for i in range(len(samples)) if not (output / f"gt_img_{i + 1}.txt").exists()]
    workers = min(config.workers or os.cpu_count() or 1, max(1, len(todo)))
    begun = time.perf_counter()
    made = stream(samples, todo, workers)
    for name, image_HW3, words in context.track(made, len(todo), "render", "image"):
        quality = [cv2.IMWRITE_JPEG_QUALITY, config.quality]
        coded = cv2.imencode(".jpg", image_HW3[..., ::-1], quality)[1]
        atomic_write_bytes(output / f"{name}.jpg", coded.tobytes())
        atomic_write_text(output / f"gt_{name}.txt", format_words(words))
    seconds = time.perf_counter() - begun
    annotated = [read_words(output / f"gt_img_{i + 1}.txt") for i in range(config.images)]
    scale_N = np.concatenate([short_sides(words.quad_N42[words.care_N]) for words in annotated])
    atomic_write_json(context.dir / "scales.json", scale_N.tolist())
    context.summary(
        {
            "images": config.images,
            "words": sum(map(len, annotated)),
            "care_words": len(scale_N),
            "images_per_second": len(todo) / seconds if todo else None,
            **{
                f"scale.p{share}": float(np.percentile(scale_N, share)) if len(scale_N) else None
                for share in (10, 50, 90)
            },
        }
    )


def _output(config: TextRenderConfig) -> Path:
    """The folder to write to.

    Raises:
        UserError: it is a file, or holds something else.
    """
    output = Path(config.output).expanduser()
    mark = output / MARK
    if output.exists() and not output.is_dir():
        raise UserError(f"output={config.output} is a file: name a folder")
    if mark.exists():
        if json.loads(mark.read_text(encoding="utf-8")) != _own(config):
            raise UserError(
                f"output={config.output} holds images of other settings or another seed: name "
                "another folder, or empty this one"
            )
    elif output.is_dir() and any(output.iterdir()):
        raise UserError(f"output={config.output} is not empty: name another folder")
    return output


def _own(config: TextRenderConfig) -> dict[str, str]:
    return {"sha256": digest([config.render, config.seed, config.quality])}


def _report(config: TextRenderConfig, context: StageContext) -> None:
    from adaptive.textscale.data.report import report_render

    report_render(context, config)
