"""Small text on large, almost empty pages: the second look against tiles, at equal recall.

    python experiments/bench/large_pages.py --onnx FILE --network runs/textscale

Pages of 6000 x 8000 pixels are rendered, 1 to 2 % of which are words of 8 to 20 pixels. Each
detector reads them in tiles at several zooms, and in two passes from first looks of several sizes,
without a budget. An ONNX file is its own prior; with ``--network`` it is tried with ours too. For
each first look the record names the cheapest tiling that finds as many words, and how many times
the pixels and seconds it takes. ONNX detectors find lines, whose boxes match no word: they are
judged by ``line_recall``, the share of words of which half or more lies in a box no more than twice
as high. A record that is there already is completed, not measured again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout without an install

import torch  # noqa: E402
from numpy import ndarray  # noqa: E402

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json, resolve_device  # noqa: E402
from adaptive.experiments.records import started  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.textscale.adaptive_detector import AdaptiveDetector  # noqa: E402
from adaptive.textscale.baselines import BASELINES, Counted  # noqa: E402
from adaptive.textscale.compare.methods import Measured  # noqa: E402
from adaptive.textscale.data.config import RenderConfig  # noqa: E402
from adaptive.textscale.data.render import Renderer  # noqa: E402
from adaptive.textscale.detectors import CHOICES, DetectorConfig, build_detector  # noqa: E402
from adaptive.textscale.evaluate.prior import regions_of_words  # noqa: E402
from adaptive.textscale.settings import AdaptConfig  # noqa: E402
from adaptive.textscale.words import Detections, Words, short_sides  # noqa: E402

RESULTS = Path(__file__).parents[1] / "results" / "large_pages.json"
LINE = 2.0  # height of a line's box, in those of its words, at most

Way = Callable[[ndarray], Counted]


def pages(width: int, height: int, fill: float) -> Renderer:
    """What renders the pages, by index."""
    look = {"min_scale": 8.0, "max_scale": 16.0, "shares": {"page": 1.0}}
    return Renderer(RenderConfig(height=height, width=width, fill=fill, **look))


def subjects(arguments: argparse.Namespace) -> Iterator[tuple[str, Any, Any]]:
    """Name, detector and prior of everything that was named on the command line."""
    device = resolve_device(arguments.device)

    def built(kind: str, path: str) -> Any:
        own = {"grow": CHOICES[kind].grow, "threads": arguments.threads}
        return build_detector(DetectorConfig(kind, path, **own), device)

    network = None if arguments.network is None else built("network", arguments.network)
    if arguments.onnx is not None:
        onnx = built("onnx", arguments.onnx)
        yield "onnx", onnx, onnx
        if network is not None:
            yield "onnx, our prior", onnx, network
    if network is not None:
        yield "network", network, network


def ways(detector: Any, prior: Any, arguments: argparse.Namespace) -> dict[str, Way]:
    """Every way to read a page, by name."""
    found: dict[str, Way] = {
        f"tiling x{zoom:g}": BASELINES["tiling"](detector, prior, AdaptConfig(), zoom=zoom)
        for zoom in arguments.zooms
    }
    for side in arguments.sides:
        config = AdaptConfig(pass1_side=side)
        config.max_pixels = max(config.max_pixels, side**2)  # of the first look too
        adaptive = AdaptiveDetector(detector, prior, config=config)
        found[f"adaptive {side}"] = lambda image, adaptive=adaptive: looked(adaptive, image)
    return found


def looked(adaptive: AdaptiveDetector, image_HW3: ndarray) -> Counted:
    """Both passes over an image."""
    result = adaptive.inspect([image_HW3])
    return Counted(result.detections[0], result.pass1_pixels + result.pass2_pixels)


def measure(name: str, by_name: dict[str, Way], arguments: argparse.Namespace) -> dict[str, Any]:
    """Numbers of each way over all pages, and the adaptive ones against tiling."""
    measured = {way: Measured() for way in by_name}
    covered = dict.fromkeys(by_name, 0)
    render = pages(arguments.width, arguments.height, arguments.fill)
    total = 0
    for index in range(arguments.pages):
        image_HW3, words = render(index, arguments.seed)
        total += int(words.care_N.sum())
        for way, read in by_name.items():
            start = time.perf_counter()
            counted = read(image_HW3)
            seconds = time.perf_counter() - start
            measured[way].add(words, counted.detections, counted.pixels, seconds)
            covered[way] += in_lines(words, counted.detections)
            print(f"{name}, page {index + 1}, {way}: {seconds:.1f} s", flush=True)
    table = {
        way: each.numbers() | {"line_recall": covered[way] / max(total, 1)}
        for way, each in measured.items()
    }
    key = "line_recall" if name.startswith("onnx") else "recall"
    against = against_tiling(table, key)
    return {"words": total, "ways": table, "judged_by": key, "against_tiling": against}


def in_lines(words: Words, found: Detections) -> int:
    """How many words that count lie in a box of about their line's height."""
    box_N = regions_of_words(words, found.quad_N42)
    high_N = short_sides(words.quad_N42)
    inside_N = words.care_N & (box_N >= 0)
    line_M = short_sides(found.quad_N42)[box_N[inside_N]]
    return int((line_M <= LINE * high_N[inside_N]).sum())


def against_tiling(table: dict[str, dict[str, float]], key: str) -> dict[str, Any]:
    """For each adaptive way, the cheapest tiling with at least its recall, and how many times its
    pixels and time that takes; None where no tiling finds as much.

    Args:
        table: numbers of each way.
        key: of the recall that counts.
    """
    tilings = {way: row for way, row in table.items() if way.startswith("tiling")}
    found: dict[str, Any] = {}
    for way, row in table.items():
        if way in tilings:
            continue
        equal = [t for t, other in tilings.items() if other[key] >= row[key]]
        if not equal:
            found[way] = None
            continue
        best = min(equal, key=lambda t: tilings[t]["megapixels"])
        times = {cost: tilings[best][cost] / row[cost] for cost in ("megapixels", "ms_per_image")}
        found[way] = {"tiling": best, "recall": tilings[best][key], "times": times}
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--onnx", help="text detector with a probability map, such as PP-OCR's")
    parser.add_argument("--network", help="run of textscale_train, file of weights, or zoo:NAME")
    parser.add_argument("--pages", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the pages")
    parser.add_argument("--width", type=int, default=6000, help="of a page in pixels")
    parser.add_argument("--height", type=int, default=8000)
    parser.add_argument("--fill", type=float, default=0.05, help="share of paragraphs printed")
    parser.add_argument("--zooms", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.5, 2.0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1536, 2048, 3072, 4096])
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", default="cpu", help="of the network")
    parser.add_argument("--commit", help="what is measured, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    if arguments.onnx is None and arguments.network is None:
        parser.error("nothing to measure: give --onnx, --network or both")
    page = f"--pages {arguments.pages} --width {arguments.width} --height {arguments.height}"
    page += f" --fill {arguments.fill} --seed {arguments.seed} --threads {arguments.threads}"
    command = f"python experiments/bench/large_pages.py {page}"
    torch.set_num_threads(arguments.threads)  # before the record describes the device
    try:
        record = started(arguments.out, command, arguments.device, arguments.commit, "detectors")
        for name, detector, prior in subjects(arguments):
            if name not in record["detectors"]:
                by_name = ways(detector, prior, arguments)
                record["detectors"][name] = measure(name, by_name, arguments)
                atomic_write_json(arguments.out, record)
    except UserError as error:
        sys.exit(f"error: {error}")
    for name, entry in record["detectors"].items():
        print(name, entry["against_tiling"])


if __name__ == "__main__":
    main()
