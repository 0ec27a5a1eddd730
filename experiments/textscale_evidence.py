"""What a trained text network is worth in two passes, beside every other way to spend pixels.

    python experiments/textscale_evidence.py --network runs/textscale --onnx FILE --devices cpu cuda

On the 100 ``val`` photographs of ICDAR 2015, by its rules: the network at single long sides, in
tiles, in fixed-zoom chips and in three zooms, in two passes under a ladder of budgets from first
looks of several sizes, and with a prior that knows the words. An ONNX file is measured alike, with
its own map as the prior and with our network. Thresholds are tuned on the same photographs, once
for all ways; recall curves are fitted on training photographs. All numbers go to
``experiments/results/textscale_evidence.json``, each as soon as it is there; what is there already
is not measured again. ``experiments/textscale_page.py`` makes a page of it.

Shapes: N words, 4 corners, 2 coordinates, I images.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

import numpy as np  # noqa: E402
import torch  # noqa: E402

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json, resolve_device  # noqa: E402
from adaptive.experiments.records import started  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.textscale.adaptive_detector import AdaptiveDetector  # noqa: E402
from adaptive.textscale.baselines import BASELINES  # noqa: E402
from adaptive.textscale.compare.methods import (  # noqa: E402
    Measured,
    heights_found,
    run_adaptive,
    run_baseline,
)
from adaptive.textscale.data.labelled import LabelledImages, Sample  # noqa: E402
from adaptive.textscale.detectors import CHOICES, DetectorConfig, build_detector  # noqa: E402
from adaptive.textscale.evaluate.by_height import recall_by_height  # noqa: E402
from adaptive.textscale.evaluate.icdar import match, score  # noqa: E402
from adaptive.textscale.recall import RecallCurve  # noqa: E402
from adaptive.textscale.settings import AdaptConfig  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "textscale_evidence.json"
DATA = Path(os.environ.get("ADAPTIVE_DATA", "../shared/data")) / "scene_text" / "icdar15"
SIDES = (240, 320, 400, 480, 720, 960, 1024, 1280, 1440)
CURVE_SIDES = (320, 480, 720, 960, 1440)
TUNED_SIDE = 960  # at which thresholds are tuned: the photographs' own
THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
BOX_THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)
BUDGETS = (60_000, 100_000, 150_000, 200_000, 250_000, 300_000, 400_000, 500_000, 700_000)
OTHERS = ("tiling", "fixed_zoom", "three_zooms")
PASS1 = {"network": (320, 480, 640), "onnx": (480, 736)}  # long sides, by the kind of prior
SHARE = 0.01  # of a budget for the first look: its size alone decides
REGIONS = 30  # at which the time beside the networks is told


@dataclass
class Subject:
    """A detector with its prior, as it is measured.

    Attributes:
        name: in the results.
        detector, prior: what looks.
        prior_kind: which sizes of the first look it is made for.
        curve, pass1_curve: recall by height.
        alone: also at single scales, in tiles and the like, which need no prior of their own.
    """

    name: str
    detector: Any
    prior: Any
    prior_kind: str
    curve: RecallCurve
    pass1_curve: RecallCurve
    alone: bool


def tuned(base: DetectorConfig, images: list[Sample], device: str) -> DetectorConfig:
    """The thresholds with the highest F at one long side; the maps are made once."""
    configs = [
        replace(base, threshold=low, box_threshold=high)
        for low, high in itertools.product(THRESHOLDS, BOX_THRESHOLDS)
    ]
    detectors = [build_detector(config, device) for config in configs]
    matches: list[list[Any]] = [[] for _ in configs]
    for _, image_HW3, words in images:
        maps: list[Any] = []

        def one_look(input_hw3: Any, maps: list[Any] = maps) -> Any:
            maps.append(detectors[0].maps(input_hw3))
            return detectors[0].boxes(maps[0])

        single = BASELINES["single"](one_look, detectors[0], AdaptConfig(), side=TUNED_SIDE)
        single(image_HW3)
        longest = max(image_HW3.shape[:2])
        for detector, found in zip(detectors, matches, strict=True):
            boxes = detector.boxes(maps[0])
            scaled_N42 = (boxes.quad_N42 * (longest / TUNED_SIDE)).astype(np.float32)
            found.append(match(words, replace(boxes, quad_N42=scaled_N42)))
    best = int(np.argmax([score(found).hmean for found in matches]))
    return configs[best]


def fitted(detector: Any, images: list[Sample]) -> RecallCurve:
    """How likely the detector finds words of a height, over several single scales."""
    heights, found = [], []
    for side in CURVE_SIDES:
        measured = over(images, BASELINES["single"](detector, detector, AdaptConfig(), side=side))
        zooms = [side / max(image_HW3.shape[:2]) for _, image_HW3, _ in images]
        height_N, found_N = heights_found(measured, zooms)
        heights.append(height_N)
        found.append(found_N)
    return RecallCurve.fit(np.concatenate(heights), np.concatenate(found))


def over(images: list[Sample], way: Any, *, oracle: bool = False) -> Measured:
    """A baseline or an adaptive detector over images that are decoded already."""
    if isinstance(way, AdaptiveDetector):
        return run_adaptive(images, way, iter, oracle=oracle)
    return run_baseline(images, way, iter)


def ways(subject: Subject, images: list[Sample]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every way to find the words, by name, and what measures it."""
    config = AdaptConfig()

    def baseline(name: str, **settings: Any) -> dict[str, Any]:
        way = BASELINES[name](
            subject.detector, subject.prior, config.for_prior(subject.prior), **settings
        )
        return over(images, way).numbers()

    def two_passes(side: int, pixels: int | None, oracle: bool = False) -> dict[str, Any]:
        budget = None if pixels is None else {"pixels": pixels}
        detector = AdaptiveDetector(
            subject.detector,
            subject.prior,
            budget,
            recall=subject.curve,
            pass1_recall=subject.pass1_curve,
            config=replace(config, pass1_side=side, pass1_share=SHARE),
        )
        measured = over(images, detector, oracle=oracle)
        return measured.numbers() | ({} if oracle else details(measured))

    if subject.alone:
        for side in SIDES:
            yield f"single {side}", lambda side=side: baseline("single", side=side)
        for name in OTHERS:
            yield name, lambda name=name: baseline(name)
    for side in PASS1[subject.prior_kind]:
        yield f"adaptive {side}", lambda side=side: two_passes(side, None)
        for n in BUDGETS:
            yield f"adaptive {side} at {n}", lambda side=side, n=n: two_passes(side, n)
    if subject.alone:
        for n in BUDGETS:
            yield f"oracle at {n}", lambda n=n: two_passes(480, n, oracle=True)


def details(measured: Measured) -> dict[str, Any]:
    """Of the prior, by the height of words, and the time beside the networks."""
    prior = measured.prior()
    bands = recall_by_height(zip(measured.words, measured.matches, strict=True))
    count_I = np.array([len(regions) for regions in measured.regions], float)
    overhead_I = 1e3 * np.array(measured.overhead)
    # A line through all images, as few have just so many regions; flat where all have as many.
    slope = np.polyfit(count_I, overhead_I, 1)[0] if np.ptp(count_I) else 0.0
    return {
        "pass1_recall": prior.recall,
        "scale_error": prior.scale_error,
        "recall_by_height": {name: band.recall for name, band in bands.items()},
        "regions": float(count_I.mean()),
        "overhead_ms": float(np.median(overhead_I)),
        f"overhead_ms_at_{REGIONS}": float(overhead_I.mean() + slope * (REGIONS - count_I.mean())),
    }


def tune(record: dict[str, Any], val: list[Sample], arguments: argparse.Namespace) -> None:
    """Adds thresholds and recall curves to the record, where they are not in it."""
    for kind, path in (("network", arguments.network), ("onnx", arguments.onnx)):
        if path is None or kind in record["tuned"]:
            continue
        device = resolve_device(arguments.devices[-1]) if kind == "network" else "cpu"
        config = tuned(DetectorConfig(kind, path, grow=CHOICES[kind].grow), val, device)
        train = LabelledImages(arguments.train)[: arguments.curve_images]
        record["tuned"][kind] = {
            "threshold": config.threshold,
            "box_threshold": config.box_threshold,
            "curve": asdict(fitted(build_detector(config, device), train)),
        }
        atomic_write_json(arguments.out, record)


def subjects(record: dict[str, Any], arguments: argparse.Namespace) -> Iterator[Subject]:
    """Everything that is measured, as it was tuned."""
    made: dict[str, tuple[DetectorConfig, RecallCurve]] = {}
    for kind, path in (("network", arguments.network), ("onnx", arguments.onnx)):
        if path is None:
            continue
        known = record["tuned"][kind]
        config = DetectorConfig(
            kind,
            path,
            threshold=known["threshold"],
            box_threshold=known["box_threshold"],
            grow=CHOICES[kind].grow,
            threads=arguments.threads,
        )
        made[kind] = config, RecallCurve(**known["curve"])
    if "network" in made:
        config, curve = made["network"]
        for name in arguments.devices:
            net = build_detector(config, resolve_device(name))
            yield Subject(f"network, {name}", net, net, "network", curve, curve, True)
    if "onnx" in made:
        config, curve = made["onnx"]
        onnx = build_detector(config, "cpu")
        yield Subject("onnx, cpu", onnx, onnx, "onnx", curve, curve, True)
        if "network" in made:
            own, own_curve = made["network"]
            net = build_detector(own, "cpu")
            name = "onnx with our prior, cpu"
            yield Subject(name, onnx, net, "network", curve, own_curve, False)


def measure(arguments: argparse.Namespace) -> None:
    """Measures what is missing."""
    given = {"--network": arguments.network, "--onnx": arguments.onnx}
    named = [f"{option} {path}" for option, path in given.items() if path is not None]
    command = " ".join(["python experiments/textscale_evidence.py", *named])
    command += f" --devices {' '.join(arguments.devices)} --threads {arguments.threads}"
    torch.set_num_threads(arguments.threads)  # before the record describes the device
    record = started(arguments.out, command, arguments.devices[-1], arguments.commit, "ways")
    record.setdefault("tuned", {})
    val = list(LabelledImages(arguments.val))
    record["images"] = len(val)
    tune(record, val, arguments)
    for subject in subjects(record, arguments):
        table = record["ways"].setdefault(subject.name, {})
        for way, run in ways(subject, val):
            if way in table:
                continue
            table[way] = run()
            atomic_write_json(arguments.out, record)
            numbers = table[way]
            print(
                f"{subject.name}, {way}: F {numbers['f']:.3f}, {numbers['megapixels']:.3f} Mpx, "
                f"{numbers['ms_per_image']:.1f} ms",
                flush=True,
            )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", help="run of textscale_train, file of weights, or zoo:NAME")
    parser.add_argument("--onnx", help="text detector with a probability map, such as PP-OCR's")
    parser.add_argument("--val", default=str(DATA / "val.tar"), help="photographs to report")
    parser.add_argument("--train", default=str(DATA / "train.tar"), help="for recall curves")
    parser.add_argument("--curve-images", type=int, default=150, help="of the training ones")
    parser.add_argument("--devices", nargs="+", default=["cpu"], help="of our network")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    if arguments.network is None and arguments.onnx is None:
        parser.error("nothing to measure: give --network, --onnx or both")
    try:
        measure(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
