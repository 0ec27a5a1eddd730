"""Writes ``experiments/textscale_results.md`` from what was measured of a trained text network.

    python experiments/textscale_page.py

It reads ``textscale_evidence.json`` and, where they are there, ``textscale_evidence_gpu.json`` (the
same of another machine) and ``large_pages.json`` in ``experiments/results``; no number is typed by
hand.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_text  # noqa: E402
from adaptive.experiments.readme_tables import table  # noqa: E402 # pyrefly: ignore[missing-import]
from adaptive.experiments.records import read  # noqa: E402 # pyrefly: ignore[missing-import]

HERE = Path(__file__).parent
PAGE = HERE / "textscale_results.md"
RANGE = (0.15, 0.5)  # megapixels in which the gain at equal pixels is judged
CLOSE = 0.005  # of F: as good as the best single scale
CPU = "network, cpu"
NEAR = 0.9  # of the recall of the best tiling, at least, for large pages to be judged
OVERHEAD = "overhead_ms_at_30"

Row = Mapping[str, Any]  # numbers of one way
Goal = tuple[str, str, str, bool | None]  # what, wanted, measured, reached


def of_kind(ways: Mapping[str, Row], kind: str) -> dict[str, Row]:
    """Ways whose names begin so, in order of their megapixels."""
    rows = {name: row for name, row in ways.items() if name.split()[0] == kind}
    return dict(sorted(rows.items(), key=lambda item: item[1]["megapixels"]))


def by_budget(adaptive: Mapping[str, Row]) -> dict[str, Row]:
    """At each budget the first look with the highest F; ways without a budget are left out."""
    found: dict[str, tuple[str, Row]] = {}
    for name, row in adaptive.items():
        _, _, budget = name.partition(" at ")
        if budget and (budget not in found or row["f"] > found[budget][1]["f"]):
            found[budget] = name, row
    return dict(sorted(found.values(), key=lambda item: item[1]["megapixels"]))


def single_at(singles: Mapping[str, Row], megapixels: float) -> float | None:
    """F of a single scale at so many megapixels, linear in their logarithm between the measured
    sizes; the best of the smaller ones beyond the largest, None below the smallest."""
    points = [(math.log(row["megapixels"]), row["f"]) for row in singles.values()]
    at = math.log(megapixels)
    if not points or at < points[0][0]:
        return None
    for (low, first), (high, second) in zip(points, points[1:], strict=False):
        if low <= at <= high:
            return first + (at - low) / (high - low) * (second - first)
    return max(f for _, f in points)


def margins(ways: Mapping[str, Row]) -> dict[str, float]:
    """Points of F by which the adaptive way of each budget is above the single scale at as many
    megapixels, where single scales so small were measured."""
    singles = of_kind(ways, "single")
    found = {}
    for name, row in by_budget(of_kind(ways, "adaptive")).items():
        other = single_at(singles, row["megapixels"])
        if other is not None:
            found[name] = 100 * (row["f"] - other)
    return found


def goals(record: Mapping[str, Any], pages: Mapping[str, Any] | None) -> list[Goal]:
    """What was to be reached, and what was."""
    found: list[Goal] = []
    ways = record["ways"].get(CPU, {})
    if ways:
        found += of_network(ways)
    onnx = record["ways"].get("onnx, cpu", {})
    if onnx:
        wrapped = of_kind(onnx, "adaptive")
        wrapped |= of_kind(record["ways"].get("onnx with our prior, cpu", {}), "adaptive")
        found.append(of_wrapped(of_kind(onnx, "single"), wrapped))
    for name in ("network", "onnx, our prior", "onnx"):
        entry = None if pages is None else pages["detectors"].get(name)
        if entry is not None:
            found.append(of_pages(name, entry))
    return found


def of_network(ways: Mapping[str, Row]) -> list[Goal]:
    """Goals of our network on photographs."""
    singles, adaptive = of_kind(ways, "single"), of_kind(ways, "adaptive")
    name, best = max(singles.items(), key=lambda item: item[1]["f"])
    found: list[Goal] = [
        (f"F of {name}, the best one", ">= 0.70", f"{best['f']:.3f}", best["f"] >= 0.70)
    ]
    equal = {n: row for n, row in adaptive.items() if row["f"] >= best["f"] - CLOSE}
    if equal:
        way, row = next(iter(equal.items()))  # the fewest pixels
        pixels = row["megapixels"] / best["megapixels"]
        fast = min(equal, key=lambda n: equal[n]["ms_per_image"])
        time = equal[fast]["ms_per_image"] / best["ms_per_image"]
        what = f"megapixels at that F ({way}), of the single scale's"
        found.append((what, "<= 33 %", f"{pixels:.0%}", pixels <= 1 / 3))
        what = f"wall time on the CPU at that F ({fast}), of the single scale's"
        found.append((what, "<= 50 %", f"{time:.0%}", time <= 1 / 2))
    else:
        most = max(row["f"] for row in adaptive.values())
        found.append(
            ("adaptive at that F", "within 0.5", f"{100 * (most - best['f']):+.1f} points", False)
        )
    above = margins(ways)
    low, high = RANGE
    inside = [m for n, m in above.items() if low <= adaptive[n]["megapixels"] <= high]
    what = f"points above single scale at equal megapixels, {low} to {high}"
    measured = f"{min(inside):+.1f} to {max(inside):+.1f}" if inside else "-"
    found.append((what, ">= +4", measured, min(inside) >= 4 if inside else None))
    if above:
        least = min(above.values())
        found.append(("the same at any budget, the least", ">= 0", f"{least:+.1f}", least >= 0))
    if "adaptive 480" in ways:
        seen = ways["adaptive 480"]["pass1_recall"]
        found.append(("pass-1 recall at long side 480", ">= 0.90", f"{seen:.3f}", seen >= 0.9))
        spent = ways["adaptive 480"][OVERHEAD]
        what = "all but the networks at 30 regions (ms, cutting and resizing included)"
        found.append((what, "<= 5", f"{spent:.1f}", spent <= 5))
    return found


def of_wrapped(singles: Mapping[str, Row], wrapped: Mapping[str, Row]) -> Goal:
    """The goal of an ONNX file: better F at half of its best single scale's pixels."""
    best = max(singles.values(), key=lambda row: row["f"])
    cheap = [row["f"] for row in wrapped.values() if 2 * row["megapixels"] <= best["megapixels"]]
    what = f"ONNX file wrapped, at half of {best['megapixels']:.2f} Mpx: F above single scale"
    gain = 100 * (max(cheap) - best["f"]) if cheap else None
    measured = "-" if gain is None else f"{gain:+.1f} points of {100 * best['f']:.1f}"
    return what, "> 0", measured, None if gain is None else gain > 0


def of_pages(name: str, entry: Mapping[str, Any]) -> Goal:
    """The goal of large pages: how many times the pixels tiling takes for as much recall.

    It is judged for the first look that finds most, which must come near to what tiling finds. A
    tiling that is to find as much takes more pixels than any that finds less.
    """
    ways, key = entry["ways"], entry["judged_by"]
    way = max(entry["against_tiling"], key=lambda w: ways[w][key])
    against, recall = entry["against_tiling"][way], ways[way][key]
    tilings = (row for other, row in ways.items() if other not in entry["against_tiling"])
    best = max(tilings, key=lambda row: row[key])
    what = f"large pages, {name}: pixels of tiling at equal {key.replace('_', ' ')}"
    if recall < NEAR * best[key]:
        return what, ">= 10x", f"{recall:.2f} ({way}), tiling {best[key]:.2f}", False
    if against is not None:
        times, more = against["times"]["megapixels"], ""
    else:
        times, more = best["megapixels"] / ways[way]["megapixels"], "over "
    measured = f"{more}{times:.1f}x at {recall:.2f} ({way})"
    return what, ">= 10x", measured, times >= 10


def judged(found: Sequence[Goal]) -> str:
    """The goals as a table."""
    words = {True: "reached", False: "not reached", None: "not measured"}
    rows = [[what, wanted, measured, words[done]] for what, wanted, measured, done in found]
    return table(["", "goal", "measured", ""], rows)


def listed(rows: Mapping[str, Row]) -> str:
    """Numbers of ways as a table."""
    return table(
        ["way", "F (%)", "precision", "recall", "megapixels", "ms an image"],
        [
            [
                name,
                f"{100 * row['f']:.1f}",
                f"{100 * row['precision']:.1f}",
                f"{100 * row['recall']:.1f}",
                f"{row['megapixels']:.3f}",
                f"{row['ms_per_image']:.1f}",
            ]
            for name, row in rows.items()
        ],
    )


def of_prior(rows: Mapping[str, Row]) -> str:
    """What the first look sees at each of its sizes, without a budget."""
    plain = {name: row for name, row in rows.items() if " at " not in name}
    bands = list(next(iter(plain.values()))["recall_by_height"]) if plain else []
    cells = [
        [
            name,
            f"{row['pass1_recall']:.3f}",
            "-" if row["scale_error"] is None else f"{row['scale_error']:.3f}",
            *("-" if r is None else f"{r:.2f}" for r in row["recall_by_height"].values()),
            f"{row['regions']:.1f}",
            f"{row['overhead_ms']:.1f}",
        ]
        for name, row in plain.items()
    ]
    header = ["first look", "pass-1 recall", "scale error", *(f"recall {b}" for b in bands)]
    return table([*header, "regions", "overhead (ms)"], cells)


def large(pages: Mapping[str, Any]) -> str:
    """Large pages: every way of every detector."""
    rows = [
        [
            name,
            way,
            f"{row['recall']:.3f}",
            f"{row['line_recall']:.3f}",
            f"{row['megapixels']:.1f}",
            f"{row['ms_per_image'] / 1e3:.1f}",
        ]
        for name, entry in pages["detectors"].items()
        for way, row in entry["ways"].items()
    ]
    return table(["detector", "way", "recall", "line recall", "megapixels", "s a page"], rows)


def measured_on(record: Mapping[str, Any]) -> str:
    """Device, date and commit of a record."""
    about = record["environment"]
    device = (about.get("device") or {}).get("name") or about.get("platform", "")
    return f"{device}, {record['date']}, commit `{str(record['commit'])[:7]}`"


def page(
    record: Mapping[str, Any], gpu: Mapping[str, Any] | None, pages: Mapping[str, Any] | None
) -> str:
    """The page as Markdown."""
    everything = dict(record["ways"])
    elsewhere = ""
    if gpu is not None:
        everything = gpu["ways"] | everything
        elsewhere = f" On a GPU: {measured_on(gpu)}, measured by `{gpu['command']}`."
    text = [
        "# What looking twice is worth",
        f"On {record['images']} photographs of ICDAR 2015 that no network was trained on, by the "
        f"competition's rules; {measured_on(record)}. Written by `python "
        "experiments/textscale_page.py` from [textscale_evidence.json]"
        f"(results/textscale_evidence.json), measured by `{record['command']}`."
        f"{elsewhere}",
        "Megapixels are of all inputs of both passes, padding included; times are medians of an "
        "image, decoding aside. Thresholds of each detector were chosen on these photographs, once "
        "for all ways (the single scale's at its own size), so F is a little optimistic for all "
        "alike, and the first look of each budget as well; recall curves were fitted on training "
        "photographs.",
        "## Goals",
        judged(goals(record, pages)),
    ]
    for name, ways in everything.items():
        adaptive = of_kind(ways, "adaptive")
        others = {k: v for k, v in ways.items() if k.split()[0] not in ("adaptive", "single")}
        text += [f"## {name.capitalize()}", "Two passes, at each budget the best first look:"]
        text += [listed(by_budget(adaptive))]
        singles = of_kind(ways, "single")
        if singles:
            text += ["Single scales, other ways, and a prior that knows the words:"]
            text += [listed(singles | others)]
        text += ["First looks without a budget:", of_prior(adaptive)]
    if pages is not None:
        text += [
            "## Large pages",
            f"{measured_on(pages)}, measured by `{pages['command']}`.",
            large(pages),
            "Line recall: share of the words of which half or more lies in a box no more than "
            "twice as high; it judges detectors that find lines, where recall judges words.",
        ]
    return "\n\n".join(text) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=HERE / "results", help="directory")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    try:
        record = read(arguments.results / "textscale_evidence.json")
        other = arguments.results / "large_pages.json"
        pages = read(other) if other.is_file() else None
        other = arguments.results / "textscale_evidence_gpu.json"
        gpu = read(other) if other.is_file() else None
    except UserError as error:
        sys.exit(f"error: {error}")
    atomic_write_text(arguments.out, page(record, gpu, pages))
    print(arguments.out)


if __name__ == "__main__":
    main()
