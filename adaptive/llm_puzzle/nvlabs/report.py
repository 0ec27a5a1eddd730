"""The page of a run over a released library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from adaptive.core import Allocation, ChoiceProblem, Workload, format_quantity
from adaptive.core.report import Report, choice_text, frontier_plot, ladder_plot
from adaptive.core.run import StageContext
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.nvlabs.options import MIB, Layers, load_options, read_json
from adaptive.llm_puzzle.report import METRIC_LABELS, architecture

SHOWN = 20
"""How many of each oddity are listed."""


def write(ctx: StageContext, config: PuzzleConfig) -> None:
    """Writes ``report.html``."""
    found = read_json(ctx.input("search") / "search.json")
    problem = ChoiceProblem.from_json(read_json(ctx.input("search") / "problem.json"))
    every = load_options(ctx.input("import"))
    layers = [every[i] for i in found["layers"]]
    allocation = Allocation.from_json(found["allocation"])
    measured = read_json(ctx.input("import") / "measured.json")
    page = Report(
        f"Puzzle: {config.name}",
        f"{config.parent}, NVIDIA's released library on {measured['gpu']} ({measured['dtype']})",
    )
    _headline(page, problem, allocation, found, measured)
    _frontier(page, ctx, config, problem, found)
    architecture(page, problem, allocation)
    _layers(page, layers, found, problem)
    _oddities(page, ctx, config, every)
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def _headline(
    page: Report,
    problem: ChoiceProblem,
    allocation: Allocation,
    found: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> None:
    cost, reference = allocation.cost, problem.reference_cost
    page.numbers(
        {
            "loss": f"{allocation.loss:.3f}",
            "throughput": _throughput(problem.workload, cost["latency"]),
            "latency": format_quantity(cost["latency"], "latency"),
            "memory": format_quantity(cost["memory"], "memory"),
            "gap": f"{allocation.gap:.1e}",
        },
        {
            "loss": "summed score of the layers",
            "throughput": f"parent {_throughput(problem.workload, reference['latency'])}",
            "latency": f"parent {format_quantity(reference['latency'], 'latency')}",
            "memory": f"parent {format_quantity(reference['memory'], 'memory')}",
            "gap": f"certified, {allocation.status}",
        },
    )
    page.text(
        "Latency and memory are sums over the **blocks alone**, as the library measured them at "
        f"batch {measured['batch_size']} and {measured['sequence_length']} tokens a sequence: no "
        "embedding, head or activations, and nothing was measured again here. Throughput is "
        f"batch x length / latency. The limits were {found['budget']}."
    )
    if found["missing"]:
        page.text(
            "Layers of the published child that the library has no variant for are left out on "
            f"both sides: {', '.join(found['missing'])}."
        )
    if found["approximate"]:
        page.text(
            "Layers of the published child priced as the variant of nearest width: "
            f"{', '.join(found['approximate'])}."
        )


def _frontier(
    page: Report,
    ctx: StageContext,
    config: PuzzleConfig,
    problem: ChoiceProblem,
    found: Mapping[str, Any],
) -> None:
    rows = read_json(ctx.input("search") / "frontier.json")
    solved = sorted((r for r in rows if r.get("loss") is not None), key=lambda r: r["latency"])
    points = [(1e3 * row["latency"], row["loss"]) for row in solved]
    choices = {name: np.array(c) for name, c in found["choices"].items() if c is not None}
    losses = {name: problem.total_loss(choice) for name, choice in choices.items()}
    costs = {name: problem.total(choice) for name, choice in choices.items()}
    marked = {
        name: (1e3 * costs[name]["latency"], loss)
        for name, loss in losses.items()
        if math.isfinite(loss)
    }
    page.section("Frontier").figure(
        frontier_plot(
            points,
            x="latency (ms), sum of blocks",
            y=METRIC_LABELS[config.score.metric],
            marked=marked,
            notes={name: [choice_text(problem, choice)] for name, choice in choices.items()}
            | {"frontier": [choice_text(problem, row["choice"]) for row in solved]},
        ),
        "Least loss that the library allows at each latency, the other limits being kept; with the "
        "optimum at the budget and what it is compared with.",
    )
    page.table(
        [
            {
                "architecture": name,
                "loss": losses[name] if math.isfinite(losses[name]) else None,
                "times the optimum's": _ratio(losses[name], losses["optimum"]),
                "latency (ms)": 1e3 * costs[name]["latency"],
                "memory (MiB)": costs[name]["memory"] / MIB,
                "throughput": _throughput(problem.workload, costs[name]["latency"]),
            }
            for name in choices
        ],
        "At the same limits.",
    )
    page.table(
        [
            {
                "limit": f"{100 * part:g} %",
                "latency (ms)": 1e3 * row["latency"] if "latency" in row else None,
                "speed-up": row.get("speedup"),
                "loss": row.get("loss"),
                "bound": row.get("bound"),
                "loss saved per s": row.get("price"),
                "why not": row["reason"] or "",
            }
            for part, row in zip(sorted(config.search.frontier), rows, strict=True)
        ],
        "The frontier in numbers; limits are parts of the parent's latency.",
    )


def _layers(page: Report, layers: Layers, found: Mapping[str, Any], problem: ChoiceProblem) -> None:
    chosen, published = found["choices"]["optimum"], found["choices"].get("published")
    rows = []
    for g, options in enumerate(layers):
        option = options[chosen[g]]
        other = {} if published is None else {"published": options[published[g]].block.label}
        rows.append(
            {
                "layer": problem.groups[g].removeprefix("layer "),
                "option": option.block.label,
                **other,
                "KL": _finite(option.scores["kl"]),
                "LM loss added": _finite(option.scores["lm_loss"]),
                "latency (ms)": 1e3 * option.cost["latency"],
                "memory (MiB)": option.cost["memory"] / MIB,
            }
        )
    page.table(rows, "The optimum, layer by layer.")


def _oddities(page: Report, ctx: StageContext, config: PuzzleConfig, layers: Layers) -> None:
    odd, metric = read_json(ctx.input("import") / "odd.json"), config.score.metric
    page.section("Scores of the library")
    labels = dict.fromkeys(o.block.label for layer in layers for o in layer[1:])
    scores = [{o.block.label: o.scores[metric] for o in layer} for layer in layers]
    page.figure(
        ladder_plot(
            {label: [s.get(label, math.nan) for s in scores] for label in labels},
            y=f"replace-one-block {metric}",
        ),
        "What each option costs in each layer, the rest being the parent's.",
    )
    texts = {
        "inversions": "ladders where a cheaper variant scores better than the next dearer one: "
        "noise of distillation rather than a discovery",
        "negative": "variants whose LM loss is below the parent's",
        "not_finite": f"variants left out, since their {metric} is not finite",
    }
    for name, text in texts.items():
        listed = odd[name]
        page.text(f"{len(listed)} {text}{'.' if not listed else ':'}")
        if listed:
            more = [f"and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
            page.text("\n".join(f"- {entry}" for entry in [*listed[:SHOWN], *more]))


def _throughput(workload: Workload | None, latency: float) -> str:
    assert workload is not None
    return f"{workload.tokens / latency:,.0f} tok/s" if latency else "unbounded"


def _ratio(loss: float, best: float) -> float | None:
    return loss / best if best > 0 and math.isfinite(loss) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
