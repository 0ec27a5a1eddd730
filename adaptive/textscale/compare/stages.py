"""The stages of a ``textscale_eval`` run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_path, atomic_write_json
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.baselines import BASELINES
from adaptive.textscale.compare.methods import Measured, heights_found, run_adaptive, run_baseline
from adaptive.textscale.config import TextData, TextEvalConfig, rendered
from adaptive.textscale.data.config import RENDERED, SCENE
from adaptive.textscale.data.images import UnreadableImage
from adaptive.textscale.data.labelled import LabelledImages, Sample
from adaptive.textscale.data.samples import RenderedImages
from adaptive.textscale.detector import as_mapper
from adaptive.textscale.detectors import SAME, build_detector
from adaptive.textscale.evaluate.by_height import recall_by_height
from adaptive.textscale.recall import LEAST_PAIRS, RecallCurve

CURVE = "recall_curve.json"
UNREADABLE = "unreadable.json"
ABOUT = "about.json"
PICTURES = "pictures.safetensors"
PICTURED = 3  # photographs that the page shows


def open_images(data: TextData, seed: int = 0) -> LabelledImages | RenderedImages:
    """The annotated images; ``seed`` decides those that are rendered.

    Raises:
        UserError: they are not there, or annotations are wrong.
    """
    if data.images.startswith(RENDERED):
        return RenderedImages(rendered(data.images), seed, SCENE)
    root = Path(data.root).expanduser()
    gt = None if data.gt is None else root / data.gt
    return LabelledImages(root / data.images, gt, data.format, ("data.images", "data.gt"))


def single_scales(config: TextEvalConfig, context: StageContext) -> None:
    """The detector on whole images at each long side, and the recall curve that follows."""
    images, detector = (
        open_images(config.data, config.seed),
        build_detector(config.detector, context.device),
    )
    table: dict[str, Any] = {}
    heights, found = [np.zeros(0)], [np.zeros(0, bool)]
    for side in config.sides:
        baseline = BASELINES["single"](detector, as_mapper(detector), config.adapt, side=side)
        longest: list[int] = []

        def noting(samples: Iterable[Sample], longest: list[int] = longest) -> Iterable[Sample]:
            for sample in samples:
                longest.append(max(sample[1].shape[:2]))
                yield sample

        measured = run_baseline(
            images, baseline, lambda s, side=side: noting(_track(context, s, f"single {side}"))
        )
        table[f"single_{side}"] = measured.numbers()
        height_N, found_N = heights_found(measured, [side / length for length in longest])
        heights.append(height_N)
        found.append(found_N)
    atomic_write_json(context.dir / "table.json", table)
    context.summary(_flat(table))
    height_N, found_N = np.concatenate(heights), np.concatenate(found)
    if len(height_N) >= LEAST_PAIRS:
        RecallCurve.fit(height_N, found_N).save(context.dir / CURVE)


def other_methods(config: TextEvalConfig, context: StageContext) -> None:
    """Tiles, fixed zooms and the like."""
    images, detector = (
        open_images(config.data, config.seed),
        build_detector(config.detector, context.device),
    )
    mapper = _mapper(config, detector, context.device)
    table: dict[str, Any] = {}
    for name, settings in config.baselines.items():
        adapt = config.adapt.for_prior(mapper)
        baseline = BASELINES[name](detector, mapper, adapt, **settings)
        measured = run_baseline(images, baseline, lambda s, name=name: _track(context, s, name))
        table[name] = measured.numbers()
    atomic_write_json(context.dir / "table.json", table)
    context.summary(_flat(table))


def second_look(config: TextEvalConfig, context: StageContext) -> None:
    """The adaptive detector, with its prior and with one that knows the words."""
    images, detector = (
        open_images(config.data, config.seed),
        build_detector(config.detector, context.device),
    )
    adaptive = AdaptiveDetector(
        detector,
        _mapper(config, detector, context.device),
        config.budget.limits(),
        recall=_curve(config, context),
        pass1_recall=None if config.prior.kind == SAME else config.prior.recall,
        config=config.adapt,
    )
    measured = run_adaptive(images, adaptive, lambda s: _track(context, s, "adaptive"))
    table: dict[str, Any] = {"adaptive": measured.numbers()}
    context.summary(measured.numbers())
    prior = measured.prior()
    context.summary({"pass1_recall": prior.recall, "scale_error": prior.scale_error})
    bands = recall_by_height(zip(measured.words, measured.matches, strict=True))
    context.summary({f"recall.{name}": band.recall for name, band in bands.items()})
    heights = {name: {**asdict(band), "recall": band.recall} for name, band in bands.items()}
    told = {"pass1_recall": prior.recall, "scale_error": prior.scale_error, "heights": heights}
    atomic_write_json(context.dir / ABOUT, told)
    context.summary({"overhead_ms": 1e3 * float(np.median(measured.overhead))})
    context.summary({"images": len(measured.words), "unreadable": len(images.unreadable)})
    if config.oracle:
        ceiling = run_adaptive(
            images, adaptive, lambda s: _track(context, s, "oracle"), oracle=True
        ).numbers()
        table["oracle"] = ceiling
        context.summary({f"oracle.{name}": value for name, value in ceiling.items()})
    atomic_write_json(context.dir / "table.json", table)
    atomic_write_json(context.dir / UNREADABLE, images.unreadable)
    keep_pictures(images, measured, context.dir / PICTURES)


def keep_pictures(images: LabelledImages | RenderedImages, measured: Measured, path: Path) -> None:
    """Writes the first images that can be read, with their words, for the page."""
    kept: dict[str, np.ndarray] = {}
    first = itertools.islice(_readable(images), PICTURED)
    for number, (_, image_HW3, words) in enumerate(first):
        found_N, care_N = measured.matches[number].found_N, measured.matches[number].care_N
        regions = measured.regions[number].padded_R4[:, [0, 1, 2, 1, 2, 3, 0, 3]]
        kept |= {
            f"{number}.image_HW3": image_HW3,
            f"{number}.regions_R42": regions.reshape(-1, 4, 2).astype(np.float32),
            f"{number}.found_N42": measured.found[number].quad_N42,
            f"{number}.missed_N42": words.quad_N42[care_N & ~found_N],
        }
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in kept.items()}, temporary)


def _readable(images: LabelledImages | RenderedImages) -> Iterator[Sample]:
    """Those that can be read; unlike an iteration of the set, notes none that cannot."""
    for index in range(len(images)):
        try:
            sample = images[index]
        except UnreadableImage:
            continue
        yield sample


def refuse_unreadable(config: TextEvalConfig, context: StageContext) -> None:
    """Ends a run whose set held unreadable photographs as failed, after all others are measured.

    Raises:
        UserError: there were such photographs.
    """
    refuse_left_out(config.data.images, context.input("second"))


def refuse_left_out(images: str, directory: Path) -> None:
    """Names the photographs of ``images`` that the stage of a directory had to leave out.

    Raises:
        UserError: there were such photographs.
    """
    names = json.loads((directory / UNREADABLE).read_text(encoding="utf-8"))
    if names:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"{len(names)} photographs of data.images={images} could not be read and "
            f"were left out: {listed}; the numbers are of the others"
        )


def read_tables(context: StageContext, *stages: str) -> dict[str, dict[str, float]]:
    """What the stages measured, by method."""
    table: dict[str, dict[str, float]] = {}
    for stage in stages:
        table |= json.loads((context.input(stage) / "table.json").read_text(encoding="utf-8"))
    return table


def _mapper(config: TextEvalConfig, detector: Any, device: str) -> Any:
    return as_mapper(
        detector
        if config.prior.kind == SAME
        else build_detector(config.prior, device, "prior.path")
    )


def _curve(config: TextEvalConfig, context: StageContext) -> RecallCurve | str | None:
    """The curve that is set, else the one just fitted, where that is asked for."""
    if config.detector.recall is None and config.calibrate:
        fitted = context.input("single") / CURVE
        if not fitted.is_file():
            raise UserError(
                f"calibrate=true needs {LEAST_PAIRS} words that count, over all sides, to fit a "
                "recall curve to: give it more photographs, or set detector.recall"
            )
        return str(fitted)
    return config.detector.recall


def _track(context: StageContext, samples: Iterable[Sample], desc: str) -> Iterable[Sample]:
    total = len(samples) if isinstance(samples, Sequence) else None
    return context.track(samples, total, desc, "image")


def _flat(table: dict[str, dict[str, float]]) -> dict[str, float]:
    keys = ("f", "megapixels", "ms_per_image")
    return {f"baseline.{name}.{k}": row[k] for name, row in table.items() for k in keys}
