"""TextScale's tasks over images as stages of files.

textscale_detect: detect -> report -> readable
textscale_eval:   single, others, second -> report -> readable
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from adaptive.core.cost import Origin
from adaptive.core.run import Stage, StageContext, resolve_device
from adaptive.textscale.baselines import BASELINES
from adaptive.textscale.compare import stages as comparison
from adaptive.textscale.config import TextDetectConfig, TextEvalConfig
from adaptive.textscale.data.files import open_files
from adaptive.textscale.detect import stages as detection
from adaptive.textscale.detect.report import report_folder
from adaptive.textscale.detectors import DetectorConfig
from adaptive.textscale.network.files import weights_file


def detect_stages(config: TextDetectConfig) -> list[Stage]:
    """The stages of a ``textscale_detect`` run, in order.

    Raises:
        UserError: images that are not there.
    """
    made_of = [open_files(config.input, "input").identity(), config]
    made_of += [detector_identity(config.detector), detector_identity(config.prior, "prior.path")]
    made_of += [origin_of(config.detector, config.device)]
    return [
        Stage("detect", partial(detection.detect, config), (), made_of),
        Stage("report", partial(report_folder, config), ("detect",), [config]),
        Stage("readable", partial(detection.refuse_skipped, config), ("detect",)),
    ]


def eval_stages(config: TextEvalConfig) -> list[Stage]:
    """The stages of a ``textscale_eval`` run, in order.

    Raises:
        UserError: images that are not there, wrong annotations, or an unknown baseline.
    """
    for name in config.baselines:
        BASELINES[name]
    images = comparison.open_images(config.data, config.seed).identity()
    detector = [images, config.detector, detector_identity(config.detector)]
    detector.append(origin_of(config.detector, config.device))
    both = [*detector, config.prior, detector_identity(config.prior, "prior.path"), config.adapt]
    stride = config.adapt.stride
    return [
        Stage(
            "single",
            partial(comparison.single_scales, config),
            (),
            [*detector, config.sides, stride],
        ),
        Stage("others", partial(comparison.other_methods, config), (), [*both, config.baselines]),
        Stage(
            "second",
            partial(comparison.second_look, config),
            ("single",),
            [*both, config.budget, config.oracle, config.calibrate, comparison.PICTURED],
        ),
        Stage("report", partial(_report, config), ("single", "others", "second"), [config]),
        Stage("readable", partial(comparison.refuse_unreadable, config), ("second",)),
    ]


def detector_identity(detector: DetectorConfig, setting: str = "detector.path") -> Any:
    """What decides a detector's weights and its curve, as far as sizes and times of files tell.

    Raises:
        UserError: a network has no weights there.
    """
    path = Path(detector.path).expanduser()
    if detector.kind == "network":
        path = weights_file(detector.path, setting)
    files = [path, *([] if detector.recall is None else [Path(detector.recall).expanduser()])]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [[str(file), about.st_size, about.st_mtime_ns] for file, about in found]


def origin_of(detector: DetectorConfig, device: str) -> Origin:
    """Where a detector's times hold: a run that goes on elsewhere measures them anew."""
    return Origin.here(resolve_device(device), detector.threads)


def _report(config: TextEvalConfig, context: StageContext) -> None:
    from adaptive.textscale.compare.report import report_comparison

    report_comparison(config, context)
