"""The stages of a ``textscale_detect`` run."""

from __future__ import annotations

import json

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.config import TextDetectConfig
from adaptive.textscale.detect.folder import detect_folder
from adaptive.textscale.detectors import SAME, build_detector


def detect(config: TextDetectConfig, context: StageContext) -> None:
    """Finds the words of every image."""
    own = config.prior.kind == SAME
    prior = None if own else build_detector(config.prior, context.device, "prior.path")
    detector = AdaptiveDetector(
        build_detector(config.detector, context.device),
        prior,
        config.budget.limits(),
        recall=config.detector.recall,
        pass1_recall=None if own else config.prior.recall,
        config=config.adapt,
    )
    report = detect_folder(
        detector,
        config.input,
        config.output,
        overlays=config.overlays,
        max_pixels=config.max_pixels,
        track=context.track,
    )
    count = max(report.images, 1)
    context.summary(
        {
            "images": report.images,
            "skipped": len(report.skipped),
            "words": report.words,
            "megapixels": report.megapixels / count,
            "ms_per_image": 1e3 * report.seconds / count,
            "images_with_warnings": len(report.warnings),
        }
    )
    atomic_write_json(context.dir / "folder.json", report)


def refuse_skipped(config: TextDetectConfig, context: StageContext) -> None:
    """Ends a run whose folder held unreadable images as failed, after all others are done.

    Raises:
        UserError: there were such images.
    """
    report = json.loads((context.input("detect") / "folder.json").read_text(encoding="utf-8"))
    skipped = list(report["skipped"])
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        raise UserError(
            f"{len(skipped)} of {len(skipped) + report['images']} images could not be read and "
            f"were left out: {names}; the others are in {config.output}, reasons in its index.json"
        )
