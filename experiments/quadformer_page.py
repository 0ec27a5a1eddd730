"""Writes ``experiments/quadformer_results.md`` from what was measured of trained quadtree models.

    python experiments/quadformer_page.py

It reads ``quadformer_trainings.json`` and ``quadformer_evidence.json`` in ``experiments/results``;
no number is typed by hand.
"""

from __future__ import annotations

import argparse
import math
import statistics
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
PAGE = HERE / "quadformer_results.md"
GOALS = {"64": 2.5, "100": 3.0}  # points above the resized image at equal images/s
FULL = "full grid"

Curve = Mapping[str, float]  # number of tokens to accuracy in percent


class Evidence:
    """Accuracies and speeds by training.

    Args:
        record: as ``quadformer_evidence.py`` writes it.
    """

    def __init__(self, record: Mapping[str, Any]):
        self.record = record

    def seeds(self, name: str, way: str = "centred") -> dict[str, Curve]:
        """Accuracy curves of a training, ``study/name``, by seed."""
        return {
            key.rpartition("/")[2]: ways[way]
            for key, ways in self.record["accuracy"].items()
            if key.rpartition("/")[0] == name and way in ways
        }

    def cell(self, name: str, tokens: str, way: str = "centred") -> str:
        """Mean over the seeds, and their standard deviation, as text."""
        return spread([c[tokens] for c in self.seeds(name, way).values() if tokens in c])

    def budgets(self, name: str, way: str = "centred") -> list[str]:
        """Numbers of tokens at which a training was evaluated, rising."""
        found = {tokens for curve in self.seeds(name, way).values() for tokens in curve}
        return sorted(found, key=int)

    def rate(self, kind: str, tokens: str) -> float | None:
        """Images a second of a kind of model; None where it was not timed."""
        timed = self.record["speed"].get(tokens)
        return None if timed is None else timed["images_per_second"].get(kind)

    def difference(self, one: tuple[str, str], other: tuple[str, str], tokens: str) -> list[float]:
        """Points by which one (training, way) is above another, seed by seed."""
        first, second = self.seeds(*one), self.seeds(*other)
        both = [seed for seed in first if seed in second]
        return [first[s][tokens] - second[s][tokens] for s in both if tokens in first[s]]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; a single value alone; a dash for none."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.1f} (one seed)"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def by_budget(evidence: Evidence) -> str:
    """Accuracy by number of tokens of the quadtree model, the resized image and the plain ViT."""
    budgets = evidence.budgets("main/quadtree")
    names = {
        "main/quadtree": "quadtree",
        "main/centre": "quadtree, centre prior",
        "main/uniform": "image resized",
        "full/vanilla": "plain ViT, full grid",
    }
    rows = [
        [title, *(evidence.cell(name, tokens) for tokens in budgets)]
        for name, title in names.items()
    ]
    return table(["top-1 accuracy (%)", *(f"{tokens} tokens" for tokens in budgets)], rows)


def at_equal_speed(evidence: Evidence) -> str:
    """The quadtree model against the resized image that is as fast."""
    rates = {
        tokens: rate
        for tokens in evidence.budgets("main/uniform")
        if (rate := evidence.rate("uniform", tokens)) is not None
    }
    rows = []
    for tokens, goal in GOALS.items():
        speed = evidence.rate("model", tokens)
        if speed is None or len(rates) < 2:
            continue
        gains = []
        quadtree, uniform = evidence.seeds("main/quadtree"), evidence.seeds("main/uniform")
        for seed in quadtree:
            if seed in uniform:
                gains.append(quadtree[seed][tokens] - interpolated(uniform[seed], rates, speed))
        reached = bool(gains) and statistics.mean(gains) >= goal
        verdict = "reached" if reached else "not reached"
        rows.append([tokens, f"{speed:,.0f}", spread(gains), f"{goal:+.1f}", verdict])
    header = ["tokens", "images/s", "points above the resized image", "goal", ""]
    return table(header, rows)


def interpolated(curve: Curve, rates: Mapping[str, float], speed: float) -> float:
    """Accuracy of a family of models at a speed, linear in the logarithm of the speed between
    those that were timed, and held at the nearest beyond them."""
    points = sorted((math.log(rates[tokens]), curve[tokens]) for tokens in rates if tokens in curve)
    at = min(max(math.log(speed), points[0][0]), points[-1][0])
    for (low, first), (high, second) in zip(points, points[1:], strict=False):
        if low <= at <= high:
            share = 0.0 if high == low else (at - low) / (high - low)
            return first + share * (second - first)
    return points[0][1]


def priors(evidence: Evidence) -> str:
    """Models trained with one prior each, and one model under several."""
    rows = []
    trained = {"main/quadtree": "gain**0.5 * centre (the recipe's)", "main/centre": "centre"}
    trained |= {f"priors/{name}": name for name in names_of(evidence, "priors")}
    for key, title in trained.items():
        rows.append([title, *cells(evidence, key, ("centred", "shifted"))])
    for way in sorted(ways_of(evidence, "main/quadtree")):
        if way.startswith("prior "):
            name = f"{way.removeprefix('prior ')}, trained with the recipe's"
            rows.append([name, *cells(evidence, "main/quadtree", (way, ""))])
    header = [f"{n}, {where}" for where in ("centred", "shifted") for n in few(evidence)]
    return table(["prior", *header], rows)


def cells(evidence: Evidence, name: str, ways: Sequence[str]) -> list[str]:
    """Accuracy at the few budgets, in each way."""
    return [evidence.cell(name, tokens, way) for way in ways for tokens in few(evidence)]


def few(evidence: Evidence) -> list[str]:
    """The budgets at which everything was evaluated."""
    return evidence.budgets("main/quadtree", "shifted")


def names_of(evidence: Evidence, study: str) -> list[str]:
    """Trainings of a study, sorted."""
    keys = (key.split("/") for key in evidence.record["accuracy"])
    return sorted({name for of, name, _ in keys if of == study})


def ways_of(evidence: Evidence, name: str) -> set[str]:
    """How a training was evaluated."""
    return {
        way
        for key, ways in evidence.record["accuracy"].items()
        if key.rpartition("/")[0] == name
        for way in ways
    }


def others(evidence: Evidence) -> str:
    """Other ways to fewer tokens: trained like the quadtree, and put on the plain ViT's weights."""
    rows = [["quadtree", "yes", *cells(evidence, "main/quadtree", ("centred",))]]
    rows.append(["image resized", "yes", *cells(evidence, "main/uniform", ("centred",))])
    for name in names_of(evidence, "baselines"):
        rows.append([name, "yes", *cells(evidence, f"baselines/{name}", ("centred",))])
    for way in sorted(ways_of(evidence, "full/vanilla")):
        if way.startswith("as "):
            rows.append([way[3:], "no", *cells(evidence, "full/vanilla", (way,))])
    header = ["what makes the tokens few", "trained for it"]
    return table([*header, *(f"{tokens} tokens" for tokens in few(evidence))], rows)


def parts(evidence: Evidence) -> str:
    """Each option of the model and of its training against the recipe's model, seed by seed."""
    rows = []
    for name in names_of(evidence, "parts"):
        pair = (f"parts/{name}", "centred"), ("main/quadtree", "centred")
        found = (evidence.difference(*pair, tokens) for tokens in few(evidence))
        rows.append([name.replace("_", " "), *map(signed, found)])
    return table(["points gained by", *(f"{tokens} tokens" for tokens in few(evidence))], rows)


def sharing(evidence: Evidence) -> str:
    """One budget for a batch against one for each image, same weights, same total."""
    keys = ("main/quadtree", "priors/gain", "priors/feature")
    keys = [key for key in keys if "shared" in ways_of(evidence, key)]
    rows = []
    for key in keys:
        found = (evidence.difference((key, "shared"), (key, "centred"), n) for n in few(evidence))
        rows.append([key.partition("/")[2], *map(signed, found)])
    header = ["points gained by sharing", *(f"{n} tokens on average" for n in few(evidence))]
    return table(header, rows)


def signed(values: Sequence[float]) -> str:
    """Mean and standard deviation of differences, with the sign."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):+.1f}"
    return text + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else " (one seed)")


def speeds(evidence: Evidence) -> str:
    """Images a second of all kinds of models, timed in turns."""
    timed = evidence.record["speed"]
    kinds = ["model", "uniform", "tome", "entropy", FULL]
    rows = []
    for kind in kinds:
        rates = [evidence.rate(kind, tokens) for tokens in timed]
        title = {"model": "quadtree", "uniform": "image resized"}.get(kind, kind)
        rows.append([title, *(f"{rate:,.0f}" if rate else "-" for rate in rates)])
    shares = (f"{entry['tokenizer_share']:.1%}" for entry in timed.values())
    rows.append(["prior, selection and embedding, of the quadtree's time", *shares])
    return table(["images/s", *(f"{tokens} tokens" for tokens in timed)], rows)


def goals(evidence: Evidence) -> str:
    """What was aimed at besides, seed by seed where seeds pair, and whether it was reached."""
    quadtree, rows = ("main/quadtree", "centred"), []

    def judged(goal: str, points: Sequence[float], least: float) -> None:
        if points:
            verdict = "reached" if statistics.mean(points) >= least else "not reached"
            rows.append([goal, signed(points), f"{least:+.1f}", verdict])

    full = [c[max(c, key=int)] for c in evidence.seeds("full/vanilla").values()]
    if full:
        judged("the plain ViT passes 82 % at its full grid", [v - 82 for v in full], 0.0)
    for tokens in ("100", "145"):
        curves = evidence.seeds(*quadtree).values()
        points = [c[tokens] - statistics.mean(full) for c in curves if full and tokens in c]
        judged(f"at {tokens} tokens, of the plain ViT's accuracy at its full grid", points, 0.0)
    for way in ("centred", "shifted"):
        for tokens in few(evidence):
            points = evidence.difference(("main/quadtree", way), ("main/centre", way), tokens)
            judged(f"above the centre prior, {way}, {tokens} tokens", points, 0.5)
    for name in names_of(evidence, "baselines"):
        for tokens in few(evidence):
            points = evidence.difference(quadtree, (f"baselines/{name}", "centred"), tokens)
            judged(f"above {name}, trained alike, {tokens} tokens", points, 0.0)
    return table(["goal", "points", "at least", ""], rows)


def evaluation_noise(trainings: Mapping[str, Any], evidence: Evidence) -> str:
    """How far off one evaluation is by the draw of its images, as words; none if not known."""
    summaries = [entry["summary"] for entry in trainings["trainings"].values()]
    count = next((s["images.valid"] for s in summaries if "images.valid" in s), None)
    shares = [v / 100 for curve in evidence.seeds("main/quadtree").values() for v in curve.values()]
    if count is None or not shares:
        return ""
    share = statistics.mean(shares)
    error = 100 * math.sqrt(share * (1 - share) / count)
    return f"; on {count:,} validation images one evaluation's standard error is {error:.1f} points"


def page(trainings: Mapping[str, Any], evidence: Evidence) -> str:
    """The page as Markdown."""
    record = evidence.record
    about = record["environment"]
    device = (about.get("device") or {}).get("name") or about.get("platform", "")
    timed = next(iter(record["speed"].values()), {})
    seconds = sum(t["summary"].get("train.seconds", 0) for t in trainings["trainings"].values())
    sections = {
        "Accuracy by number of tokens": by_budget(evidence),
        "Against resizing the image, at equal measured images/s": at_equal_speed(evidence),
        "Other goals": goals(evidence),
        "Priors": priors(evidence),
        "Other ways to fewer tokens": others(evidence),
        "Parts of the model and of its training": parts(evidence),
        "A budget for the batch": sharing(evidence),
        "Speed": speeds(evidence),
    }
    text = [
        "# What mixed resolution is worth",
        f"{len(trainings['trainings'])} trainings of one recipe in {seconds / 60:.0f} minutes on "
        f"{device}, {record['date']}, commit `{str(record['commit'])[:7]}`. Written by `python "
        "experiments/quadformer_page.py` from [quadformer_trainings.json]"
        "(results/quadformer_trainings.json) and [quadformer_evidence.json]"
        "(results/quadformer_evidence.json); measured by\n\n"
        f"```sh\n{trainings['command']}\n{record['command']}\n```",
        "Each model is trained once, over all budgets, a number of tokens drawn at each step; all "
        "have the same epochs, augmentation and data. Numbers are means over seeds with their "
        f"standard deviation{evaluation_noise(trainings, evidence)}. Shifted: images are shown "
        "through a window moved towards a corner, so "
        "that objects lie off the centre. Speeds are medians of rounds in turn, "
        f"{timed.get('mode', '-')}, batches of {timed.get('batch', '-')}; images that are resized "
        "were so before.",
    ]
    for title, written in sections.items():
        text += [f"## {title}", written]
    return "\n\n".join(text) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=HERE / "results", help="directory")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    try:
        trainings = read(arguments.results / "quadformer_trainings.json")
        evidence = Evidence(read(arguments.results / "quadformer_evidence.json"))
    except UserError as error:
        sys.exit(f"error: {error}")
    atomic_write_text(arguments.out, page(trainings, evidence))
    print(arguments.out)


if __name__ == "__main__":
    main()
