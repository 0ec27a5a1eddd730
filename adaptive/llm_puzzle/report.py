"""The page of a Puzzle run: what was found, what was promised, what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaptive.core import Allocation, ChoiceProblem, format_quantity
from adaptive.core.report import (
    Report,
    allocation_plot,
    choice_text,
    compare_plot,
    curves_of,
    curves_plot,
    frontier_plot,
    ladder_plot,
    predicted_measured_plot,
)
from adaptive.core.run import StageContext
from adaptive.llm_puzzle import fusion, report_search
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.rounds import healing
from adaptive.llm_puzzle.score import LayerScores, load_scores

METRIC_LABELS = {
    "kl": "sum of replace-one-block KL (nats/token)",
    "lm_loss": "sum of replace-one-block loss increases (nats/token)",
    "cosine": "sum of replace-one-block cosine distances",
}
SIDES = {"attention": "attention", "ffn": "feed-forward"}


def write(ctx: StageContext, config: PuzzleConfig) -> None:
    """Writes ``report.html`` and ``results.json`` of a finished run."""
    found = _read(ctx.input("search") / "search.json")
    problem = ChoiceProblem.from_json(_read(ctx.input("search") / "problem.json"))
    allocation = Allocation.from_json(found["allocation"])
    checked = _read(ctx.input("verify") / "verify.json")
    bound = config.cost.model == "roofline"
    results = {
        name: _read(path)
        for name in ("child", *config.baselines)
        if (path := ctx.input(_stage(name)) / "quality.json").is_file()
    }
    page = Report(f"Puzzle: {config.name}", f"{config.parent} on {ctx.device}")
    _headline(page, allocation, results["child"], checked)
    _frontier(page, ctx, config, problem, found, results, bound)
    architecture(page, problem, allocation)
    promised = fusion.kept(ctx) or found["allocation"]
    checks = _read(ctx.input("search") / "checks.json")
    _promise(page, promised["cost"], checked, checks, bound)
    report_search.rounds(page, ctx, config.search.rounds)
    report_search.solutions(page, ctx)
    report_search.coupled(page, ctx, config.distill.coupled_tokens)
    report_search.additivity(page, ctx)
    report_search.ffn_fusion(page, ctx)
    _results(page, results, healing(config) is not None and config.search.carry)
    _positions(page, ctx, config, results)
    _benchmarks(page, results)
    _exports(page, _read(ctx.input("export") / "compatibility.json"))
    _library(page, ctx, config, load_scores(ctx.input("scores")))
    _training(page, ctx, config)
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def architecture(page: Report, problem: ChoiceProblem, allocation: Allocation) -> None:
    """The child beside the parent, layer by layer."""
    page.section("Chosen architecture").figure(
        allocation_plot(problem, allocation, resource="latency", names=("parent", "child")),
        "Left: every option of every layer, in stronger colour where it costs more quality; the "
        "parent's framed, the child's filled. Right: latency of each layer.",
    )


def _headline(
    page: Report, allocation: Allocation, child: Mapping[str, float], checked: Mapping[str, Any]
) -> None:
    page.numbers(
        {
            "speed-up": f"{checked['speedup.measured']:.2f}x",
            "loss": f"{child['loss.gkd']:.3f}",
            "KL from parent": f"{child['kl.gkd']:.3f}",
            "parameters": f"{child['params'] / 1e6:.2f} M",
            "gap": f"{allocation.gap:.1e}" if allocation.gap else "0",
        },
        {
            "speed-up": "measured",
            "loss": "nats a token, after distillation",
            "KL from parent": "nats a token",
            "gap": f"certified, {allocation.status}",
        },
    )


def _frontier(
    page: Report,
    ctx: StageContext,
    config: PuzzleConfig,
    problem: ChoiceProblem,
    found: Mapping[str, Any],
    results: Mapping[str, Any],
    bound: bool,
) -> None:
    rows = [
        row for row in _read(ctx.input("search") / "frontier.json") if row.get("loss") is not None
    ]
    rows.sort(key=lambda row: row["latency"])
    points = [(1e3 * row["latency"], row["loss"]) for row in rows]
    notes = {"frontier": [choice_text(problem, row["choice"]) for row in rows]}
    marked = {}
    for name in results:
        choice = np.array(found["choices"][name])
        total, loss = problem.total(choice)["latency"], problem.total_loss(choice)
        if math.isfinite(loss):  # a baseline may lie outside of the reduced space
            marked[name] = (1e3 * total, found["base"] + loss)
            notes[name] = [choice_text(problem, choice)]
    kind = "lower bound" if bound else "predicted from measured blocks"
    page.section("Frontier").figure(
        frontier_plot(
            points,
            x=f"latency (ms), {kind}",
            y=METRIC_LABELS[config.score.metric],
            marked=marked,
            notes=notes,
        ),
        "Least loss that the library allows at each latency, with the child and the baselines."
        + (
            " Of pairs trained together and those left beside them, which few baselines keep to."
            if config.distill.coupled_tokens
            else ""
        ),
    )
    page.table(
        [
            {
                "latency (ms)": f"{1e3 * row['latency']:.3f}",
                "speed-up": f"{row['speedup']:.2f}x",
                "loss": f"{row['loss']:.4f}",
                "bound": f"{row['bound']:.4f}",
                "loss saved per ms": f"{row['price'] / 1e3:.4f}",
            }
            for row in rows
        ],
        "The frontier in numbers; the last column is the marginal price of latency.",
    )


def _promise(
    page: Report,
    predicted: Mapping[str, float],
    checked: Mapping[str, Any],
    searched: list[dict[str, float]],
    bound: bool,
) -> None:
    """Predicted costs and measured ones; ``searched`` are architectures that the search timed."""
    error = checked["latency.error"]  # None of a bound, and of another device's latencies
    rows = [
        {
            "quantity": f"latency{' (predicted: lower bound)' if bound else ''}",
            "predicted": format_quantity(predicted["latency"], "latency"),
            "measured": format_quantity(checked["latency.child.measured"], "latency"),
            "error": "" if error is None else f"{100 * error:+.1f} %",
        },
        {
            "quantity": "memory (weights and KV cache)",
            "predicted": format_quantity(predicted["memory"], "memory"),
            "measured": format_quantity(checked["memory.child.measured"], "memory"),
            "error": "run without quantisation"
            if checked["memory.error"] is None
            else f"{100 * checked['memory.error']:+.1f} %",
        },
    ]
    page.section("Predicted and measured").table(
        rows, "The child's promise and the fact; the latency's error is that of the speed-up."
    )
    if searched:
        points = [
            {
                "name": f"architecture {number}",
                "predicted": 1e3 * row["predicted"],
                "measured": 1e3 * row["measured"],
            }
            for number, row in enumerate(searched, 1)
        ]
        page.figure(
            predicted_measured_plot(points, unit="ms"),
            "Latency of every architecture timed during the search (candidates and baselines), "
            "each in turns with the parent, against the sum of its measured blocks.",
        )


def _results(page: Report, results: Mapping[str, Any], healed: bool) -> None:
    """How good child and baselines are; ``healed``: the child goes on from distilled ones."""
    page.section("Quality").figure(
        compare_plot(
            {name: result["loss.gkd"] for name, result in results.items()},
            x="loss after global distillation (nats/token)",
        ),
        "Child and baselines: same budget, same library, same distillation tokens.",
    )
    page.table(
        [
            {
                "architecture": name,
                "loss before": f"{result['loss.bld']:.4f}",
                "loss after": f"{result['loss.gkd']:.4f}",
                "KL before": f"{result['kl.bld']:.4f}",
                "KL after": f"{result['kl.gkd']:.4f}",
                "same top choice": f"{100 * result['top1.gkd']:.1f} %",
                "in the top 5": f"{100 * result['top5.gkd']:.1f} %",
                "in the top 10": f"{100 * result['top10.gkd']:.1f} %",
                "parameters": f"{result['params']:,}",
            }
            for name, result in results.items()
        ],
        "Validation, before and after global distillation; how often the child's first choice is "
        "among the parent's first one, five and ten."
        + (
            " The child goes on from partial children, which were distilled between rounds on a "
            "part of the tokens: what it was before is before the rest of them."
            if healed
            else ""
        ),
    )
    kept = [name for name, result in results.items() if result["gkd.kept"] == "start"]
    if kept:
        page.text(
            f"Global distillation made {', '.join(kept)} worse; what it was before is kept, and "
            "both columns say so."
        )


def _positions(
    page: Report, ctx: StageContext, config: PuzzleConfig, results: Mapping[str, Any]
) -> None:
    """Loss by position in rows longer than those of distillation."""
    measured = {name: r["positions"] for name, r in results.items() if r["positions"]}
    if not measured:
        return
    about = _read(ctx.input("contexts") / "contexts.json")["positions"]
    curves = {
        name: [((b["start"] * (b["stop"] - 1)) ** 0.5, b["loss"]) for b in buckets]
        for name, buckets in measured.items()
    }
    buckets = next(iter(measured.values()))
    middle = [(b["start"] * (b["stop"] - 1)) ** 0.5 for b in buckets]
    curves["parent"] = [(x, b["parent_loss"]) for x, b in zip(middle, buckets, strict=True)]
    text = (
        f"{about['tokens']:,} tokens in rows of {about['length']}, averaged between powers of two."
    )
    if about["joined"]:
        text += " Documents are shorter than that, so each row holds several, one after the other."
    page.section("Loss by position").figure(
        curves_plot(
            curves,
            x="position in the row (tokens)",
            y="loss (nats/token)",
            doublings=True,
            mark=(f"rows of distillation, {config.data.length} tokens", config.data.length),
        ),
        text,
    )


def _benchmarks(page: Report, results: Mapping[str, Any]) -> None:
    scores = {name: result["lm_eval"] for name, result in results.items() if result["lm_eval"]}
    if not scores:
        return
    scores = {"parent": results["child"]["parent.lm_eval"]} | scores
    page.section("Benchmarks").table(
        [
            {"architecture": name, **{task: f"{value:.4f}" for task, value in row.items()}}
            for name, row in scores.items()
        ],
        "lm-evaluation-harness, through its Python interface.",
    )


def _exports(page: Report, rows: list[dict[str, Any]]) -> None:
    page.section("Exports").table(
        [
            {
                "engine": row["title"],
                "reads": row["export"],
                "written": "yes" if row["written"] else "no",
                "loads this child": row["answer"],
            }
            for row in rows
        ],
        "Which engine loads this child, by what its loader can do (not tried here); all reasons "
        "are in artifacts/export/compatibility.json.",
    )


def _library(
    page: Report, ctx: StageContext, config: PuzzleConfig, scores: list[LayerScores]
) -> None:
    metric = config.score.metric
    records = _read(ctx.input("library") / "library.json")
    page.section("Block library")
    for side, name in SIDES.items():
        labels = list(dict.fromkeys(label for s in scores for label in getattr(s, side)[1:]))
        ladders = {label: [_score(s, side, label, metric) for s in scores] for label in labels}
        if ladders:
            page.figure(
                ladder_plot(ladders, y=f"replace-one-block {metric}"),
                f"What each {name} option costs in each layer, the rest being the parent's.",
            )
    inversions = _read(ctx.input("scores") / "inversions.json")
    if inversions:
        page.text(
            f"{len(inversions)} ladders are not monotone: a cheaper option scores better than a "
            "dearer one. That is distillation noise rather than a discovery; with "
            "`search.isotonic` the search goes by the nearest scores that are monotone."
        )
        page.table(
            [{**i, "difference": f"{i['difference']:.4f}"} for i in inversions[:20]],
            "Inversions, the first twenty.",
        )
    for side, name in SIDES.items():
        trained = _trained(records, side, len(scores))
        if trained:
            page.figure(
                ladder_plot(trained, y="normalised error of the block"),
                f"Local distillation: error of each {name} option's output on held-out rows, "
                "after training.",
            )
    if records:
        page.table(
            [_mean_losses(option, records) for option in dict.fromkeys(map(_option, records))],
            "Normalised error of the block's output on held-out rows, mean over layers: with the "
            "paper's initial weights, with closed-form ones, and after local distillation.",
        )


def _trained(records: list[dict[str, Any]], side: str, layers: int) -> dict[str, list[float]]:
    """Name of each option to its error in each layer; NaN where the layer lacks it."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["side"] == side:
            errors = found.setdefault(record["option"], [math.nan] * layers)
            errors[record["layer"]] = record["loss"]
    return found


def _option(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["side"], record["option"]


def _mean_losses(option: tuple[str, str], records: list[dict[str, Any]]) -> dict[str, str]:
    mine = [record for record in records if _option(record) == option]
    means = {
        label: f"{np.mean([record[name] for record in mine]):.4f}"
        for label, name in (
            ("paper's start", "loss_paper"),
            ("closed-form start", "loss_ridge"),
            ("distilled", "loss"),
        )
    }
    return {"half": option[0], "option": option[1], **means}


def _score(score: LayerScores, side: str, label: str, metric: str) -> float:
    """Score of one option with the parent's other half; NaN where the layer lacks it."""
    labels = getattr(score, side)
    if label not in labels:
        return float("nan")
    table_AF, i = score.values_AF[metric], labels.index(label)
    return float(table_AF[i, 0] if side == "attention" else table_AF[0, i])


def _training(page: Report, ctx: StageContext, config: PuzzleConfig) -> None:
    records = [
        record | {"who": record["stage"].removeprefix("baseline_")}
        for record in ctx.run.metrics.records()
        if record["stage"].startswith("baseline_")
    ]
    records += [record | {"who": "child"} for record in _of_the_child(ctx, config)]
    curves = curves_of(records, {"kl": "{}"}, by="who", x="tokens")
    if not curves:
        return
    page.section("Global distillation").figure(
        curves_plot(curves, x="tokens", y="KL from the parent (nats/token)", log=True),
        "Training batches, child and baselines.",
    )
    titles = {"lm": "language modelling", "kl": "KL", "cosine": "cosine of layers", "mse": "MSE"}
    own = [record for record in records if record["who"] == "child"]
    terms = curves_of(own, titles, x="tokens")
    page.figure(
        curves_plot(terms, x="tokens", y="loss"), "The child's losses on the same batches by term."
    )


def _of_the_child(ctx: StageContext, config: PuzzleConfig) -> Iterator[dict[str, Any]]:
    """Steps of the child's training, and before them those of the partial children whose weights it
    goes on from, one after the other."""
    every = [record for record in ctx.run.metrics.records() if "cosine" in record]
    stages = [f"scores_{index}" for index in range(1, config.search.rounds)]
    seen = 0.0
    for stage in [*(stages if config.search.carry else []), "child"]:
        own = [record for record in every if record["stage"] == stage]
        yield from (record | {"tokens": seen + record["tokens"]} for record in own)
        seen += own[-1]["tokens"] if own else 0.0


def _stage(name: str) -> str:
    return name if name == "child" else f"baseline_{name}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
