"""Writes the tables of the README from the result files, so that no number is typed by hand.

Usage: python experiments/readme_tables.py [--check]

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; ``--check`` writes nothing and
fails where the README is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def puzzle() -> str:
    """Losses of a child and its baselines after the same distillation."""
    frontier, stories, h100 = map(
        load, ("puzzle_tiny_frontier", "puzzle_stories", "puzzle_tiny_h100")
    )
    tiny = next(point for point in frontier["points"] if point["budget"] == "1.5x")
    git = {"commit": frontier["environment"]["git"]["commit"]}
    cpu = "2 CPU cores (AMD EPYC)"
    runs = [
        ("`zoo:llama-tiny`", cpu, tiny, measured(frontier | git)),
        ("stories260K", cpu, stories["summary"], measured(stories)),
        ("`zoo:llama-tiny`, generating 128 tokens", "H100", h100["summary"], measured(h100)),
    ]
    ablations = load("puzzle_ablations")
    runs.append(
        ("`llama-small` (21 M), three seeds", "H100", at_middle(ablations), measured(ablations))
    )
    header = ("parent", "device", "speed-up", "parent", "child")
    header += ("greedy (the paper's)", "random", "uniform", "measured")
    return table(header, (_puzzle_row(*run) for run in runs))


def at_middle(record: dict[str, Any]) -> dict[str, Any]:
    """What the ablations say of the middle budget, averaged over seeds; how many of their children
    were timed is told where it is not all."""
    cells = [c for key, c in record["cells"].items() if key.startswith("allocation/all/1.75x/")]
    speeds = [cell["measured"]["child"] for cell in cells if "measured" in cell]
    keys = ["parent.loss", "child.loss.gkd"]
    keys += [f"baseline.{name}.loss" for name in ("greedy", "random", "uniform")]
    means = {key: sum(cell["summary"][key] for cell in cells) / len(cells) for key in keys}
    note = "" if len(speeds) == len(cells) else f" ({len(speeds)} of {len(cells)} timed)"
    return {"speedup.measured": sum(speeds) / len(speeds), "speedup.note": note, **means}


def puzzle_rounds() -> str:
    """What scoring around partial children is worth at the deepest cut."""
    cells = load("puzzle_ablations")["cells"]

    def found(study: str, child: str, key: str) -> tuple[str, str, str]:
        chosen = [c for k, c in cells.items() if k.startswith(f"{study}/2.5x/")]
        losses = [cell["summary"][key] for cell in chosen]
        loss = f"{statistics.mean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f})"
        speeds = [c["measured"][child] for c in chosen if child in c.get("measured", {})]
        speed = f"{statistics.mean(speeds):.2f}x" if speeds else "not timed"
        return speed, loss, measured(chosen[0])

    rows = [
        ("one round, as in the paper", *found("allocation/all", "child", "child.loss.gkd")),
        ("the same, run again", *found("rounds/1", "child", "child.loss.gkd")),
        ("three rounds", *found("rounds/3, not healed", "child", "child.loss.gkd")),
        ("**three rounds, healed in between**", *found("rounds/3", "child", "child.loss.gkd")),
        ("random children", *found("allocation/all", "random", "baseline.random.loss")),
    ]
    parents = [c["summary"]["parent.loss"] for k, c in cells.items() if k.startswith("rounds/1/")]
    parent = f"(parent: {statistics.mean(parents):.3f})"
    header = (f"`llama-small`, a budget of 2.5x on an H100 {parent}", "speed-up", "loss", "run")
    return table(header, rows)


def puzzle_speed() -> str:
    """How fast blocks are distilled and scored at the width of a published model."""
    result = load("puzzle_bench_h100")
    distilled = result["distillation"]
    whole = distilled["variant_tokens"] / distilled["seconds_with_initialisation_and_disk"]
    rows = [
        (
            "local distillation of every variant of a layer: training alone",
            f"{distilled['tokens_per_second']:,.0f} variant tokens/s, "
            f"{distilled['mfu']:.0%} of the peak",
        ),
        ("with initialisation, evaluation and disk", f"{whole:,.0f} variant tokens/s"),
    ]
    for granularity, what in (
        ("block", "scores of all pairs of options, each measured"),
        ("subblock", "scores of all pairs, halves measured and added up"),
    ):
        found = result["scoring"][granularity]
        known = found["speedup_of_all_pairs"]
        plain = found["speedup_of_all_pairs_with_parent"]
        rows.append((what, f"{known:.1f}x, {plain:.1f}x"))
    return table((f"Llama-3-8B's shape, {result['device']['name']}", measured(result)), rows)


def measured(result: dict[str, Any]) -> str:
    """When, and of which commit: what has changed since shows in the numbers of another day."""
    return f"{result['date'][:10]}, {result['commit'][:7]}"


def _puzzle_row(parent: str, device: str, result: dict[str, Any], when: str) -> list[str]:
    losses = [result[f"baseline.{name}.loss"] for name in ("greedy", "random", "uniform")]
    return [
        parent,
        device,
        f"{result['speedup.measured']:.2f}x{result.get('speedup.note', '')}",
        f"{result['parent.loss']:.3f}",
        f"**{result['child.loss.gkd']:.3f}**",
        *(f"{loss:.3f}" for loss in losses),
        when,
    ]


def costs() -> str:
    """Errors of predicted costs, a row a verified model and device."""
    files = sorted(path.stem for path in RESULTS.glob("verify_costs_*.json"))
    header = ("model", "device", "children", "decode steps", "generations", "memory")
    header += ("widths, heads, contexts", "tokens", "measured")
    return table(header, (_costs_row(load(name)) for name in files))


def _costs_row(result: dict[str, Any]) -> list[str]:
    summary = result["summary"]

    def error(name: str) -> str:
        mean, worst = (summary[f"{name}.error.{kind}"] for kind in ("mean", "worst"))
        return f"{100 * mean:.1f} % ({100 * worst:.1f} %)"

    return [
        result["model"],
        result["device"],
        str(summary["children"]),
        error("decode"),
        f"{summary['generations']}: {error('generate')}",
        f"{100 * summary['memory.error.mean']:.2f} %",
        f"{100 * summary['interpolation.error.mean']:.1f} %",
        f"{100 * summary['interpolation.error.batch']:.1f} %",
        measured(result),
    ]


def vits() -> str:
    """Speed of mixed-resolution ViTs against what their FLOPs promise."""
    header = ("ViT", "device, batch", "prior", "tokens", "GMAC", "images/s", "speed-up")
    header += ("FLOPs promise", "realised", "measured")
    results = [load(path.stem) for path in sorted(RESULTS.glob("vit_realisation_*.json"))]
    return table(header, (_vit_row(row, result) for result in results for row in result["rows"]))


def _vit_row(row: dict[str, Any], result: dict[str, Any]) -> list[str]:
    return [
        row["vit"].removeprefix("vit_").removesuffix("_patch16_224"),
        f"{result['device']}, {result['batch']}",
        row["prior"],
        str(row["tokens"]),
        f"{row['gmacs']:.3g}",
        f"{row['images_per_second']:,.3g}",
        f"{row['speedup']:.2f}x",
        f"{row['flop_ratio']:.2f}x",
        f"{row['realisation']:.0%}",
        measured(result),
    ]


def solvers() -> str:
    """Certified searches against the paper's solver, and a frontier."""
    result = load("solvers")
    header = ("layers x options x limits", "gap", "`solve`", "CBC", "CBC / `solve`")
    rows = [
        (
            row["instance"],
            row["gap asked"],
            row["solve() median"],
            f"{row['CBC median']} ({row['CBC out of time']} out of time)",
            row["CBC / solve()"].replace(">= ", "at least "),
        )
        for row in result["certified"]
    ]
    sweep = result["frontier"]
    return table(header, rows) + (
        f"\n\nMedians of {result['instances']} instances on {result['cpus']} CPU "
        f"cores ({measured(result)}), CBC stopped after {result['cbc_limit']:g} s. A frontier of "
        f"{sweep['budgets']} budgets on {sweep['instance']}, {sweep['certified']} of them "
        f"certified, takes {sweep['seconds']}."
    )


TABLES: dict[str, Callable[[], str]] = {
    "puzzle": puzzle,
    "puzzle_rounds": puzzle_rounds,
    "puzzle_speed": puzzle_speed,
    "costs": costs,
    "vits": vits,
    "solvers": solvers,
}


def rewritten(text: str) -> str:
    """The README with every table made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if not block.search(text):
            raise SystemExit(f"README.md has no <!-- {name} --> ... <!-- /{name} -->")
        made = make()
        text = block.sub(lambda match, made=made: match[1] + made + match[2], text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = rewritten(before)
    stale = after != before
    if arguments.check:
        # Exiting with empty text would be a failure too.
        sys.exit("README.md is stale: run python experiments/readme_tables.py" if stale else 0)
    readme.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
