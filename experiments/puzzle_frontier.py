"""Loss against measured speed: children of one parent at several budgets, beside the baselines.

    python experiments/puzzle_frontier.py --dir runs/frontier

Every budget is a run of ``puzzle_tiny`` in the same directory, so library, scores and measured
costs are made once. Writes ``experiments/results/puzzle_tiny_frontier.json`` and the picture of the
README beside it.
"""

from __future__ import annotations

import argparse
import datetime
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import adaptive  # noqa: E402
from adaptive.core.run import atomic_write_json, environment  # noqa: E402

RESULTS = Path(__file__).parent / "results"
SPEEDS = ("1.15x", "1.3x", "1.5x", "1.75x", "2.1x")
BASELINES = {"uniform": "#cc79a7", "random": "#009e73", "greedy": "#d55e00"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dir", default="runs/frontier", help="kept between budgets")
    parser.add_argument("--recipe", default="puzzle_tiny")
    arguments = parser.parse_args()
    points = []
    for speed in SPEEDS:
        run = adaptive.load(arguments.recipe, f"budget.latency={speed}").run(arguments.dir)
        points.append({"budget": speed, **run.summary})
    result = {
        "command": f"python experiments/puzzle_frontier.py --recipe {arguments.recipe}",
        "date": datetime.date.today().isoformat(),
        "environment": environment(device="cpu"),
        "points": points,
    }
    target = RESULTS / f"{arguments.recipe}_frontier"
    atomic_write_json(target.with_suffix(".json"), result)
    draw(points, target.with_suffix(".svg"))


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Loss after distillation over the speed-up: measured of the child, asked of the baselines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "adaptive"  # the same picture, the same file
    figure, axes = pyplot.subplots(figsize=(8.2, 3.8), layout="constrained")
    axes.axhline(points[0]["parent.loss"], color="#646b73", lw=1, ls=":", label="parent")
    asked = [float(point["budget"].rstrip("x")) for point in points]
    for name, colour in BASELINES.items():
        values = [point[f"baseline.{name}.loss"] for point in points]
        found = [(x, y) for x, y in zip(asked, values, strict=True) if y is not None]
        label = f"{name} (the paper's)" if name == "greedy" else name
        axes.plot(*zip(*found, strict=True), "s--", ms=4, lw=1, color=colour, label=label)
    speeds = [point["speedup.measured"] for point in points]
    losses = [point["child.loss.gkd"] for point in points]
    axes.plot(speeds, losses, "o-", lw=2, color="#0072b2", label="Puzzle (certified optimum)")
    axes.set(xlabel="speed-up over the parent", ylabel="loss (nats/token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside right center")
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
