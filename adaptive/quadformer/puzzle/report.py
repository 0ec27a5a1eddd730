"""The page of a ``puzzle_vit`` run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from adaptive.core import ChoiceProblem
from adaptive.core.report import (
    Report,
    allocation_plot,
    frontier_plot,
    ladder_plot,
    predicted_measured_plot,
)
from adaptive.core.run import StageContext
from adaptive.quadformer.evaluate.stages import read_stage
from adaptive.quadformer.puzzle.config import ARCHITECTURE, JOINT, TOKENS
from adaptive.quadformer.puzzle.parent import Run
from adaptive.quadformer.puzzle.problems import part_of
from adaptive.quadformer.puzzle.space import ATTENTION, MLP

TITLES = {JOINT: "both", TOKENS: "tokens alone", ARCHITECTURE: "architecture alone"}
NAMES = {ATTENTION: "attention", MLP: "MLP"}
UNITS = {"kl": "KL from the parent (nats)", "accuracy": "accuracy lost (points)"}


def write(run: Run, context: StageContext) -> None:
    """Writes the page: the three answers side by side, where the budget went, frontiers."""
    config = run.config
    found = read_stage(context.input("search"), "answers")
    children = read_stage(context.input("children"), "children")
    times = read_stage(context.input("verify"), "verify")
    problems = {
        int(tokens): ChoiceProblem.from_json(data)
        for tokens, data in read_stage(context.input("search"), "problems").items()
    }
    metric = UNITS[config.score.metric]
    report = Report(
        config.name, f"{config.checkpoint or config.model.vit}, budget {config.budget.latency}"
    )
    report.numbers(
        {f"{TITLES[kind]}: top-1 (%)": children[kind]["accuracy"] for kind in found["answers"]}
        | {"parent: top-1 (%)": children["parent"]["accuracy"]}
    )
    report.section("One budget, three ways to spend it").table(
        _rows(found, children, times, config.score.metric),
        f"Allowed: {1e3 * found['limit']:.3g} ms for {config.evaluate.speed_batch} images. "
        "Loss is predicted from scores of one replacement each, and measured of the whole child "
        f"before its distillation: {metric}. All were distilled alike; times are measured in "
        "turns.",
    )
    for kind, reason in found["refused"].items():
        report.text(f"No answer by **{TITLES[kind]}**: {reason}.")
    _frontier(report, context, found, metric)
    report.section("Why so many tokens").table(
        [
            {
                "tokens": row["tokens"],
                "parent's loss": row["base"],
                "least loss in the budget": row["least"],
                "latency (ms)": None if row["latency"] is None else 1e3 * row["latency"],
            }
            for row in found["by_tokens"]
        ],
        f"Predicted {metric}, at each number of tokens: of the parent as it is, and with the best "
        "blocks that the budget allows. The joint answer is the least of these that was found to "
        "keep the budget when it was timed.",
    )
    _architectures(report, found, problems)
    report.section("Predicted and measured").figure(
        predicted_measured_plot(
            [
                {
                    "name": TITLES[kind],
                    "predicted": 100 * row["promised"],
                    "measured": 100 / row["speedup"],
                }
                for kind, row in times["children"].items()
            ],
            unit="% of the parent's latency",
        ),
        "Latency of a forward: the sum of measured halves of blocks, and the child itself, each in "
        "shares of the parent's at its full grid",
    )
    _scores(report, problems, metric)
    if found["baselines"]:
        report.section("Other ways to choose the blocks").table(
            _baselines(found, config.score.metric),
            f"At the number of tokens of the joint answer and the same budget; loss: {metric}",
        )
    tokens = children[JOINT]["num_tokens"]
    report.section("Use it").text(
        "Every answer is a model that loads like a trained one, as here to evaluate it:"
    ).code(
        "command",
        "python -m adaptive.run +exp=quadformer_eval data.valid=... "
        f"checkpoint={context.run.path / 'artifacts' / 'children' / JOINT} num_tokens={tokens}",
    )
    report.provenance(config, context.run.path).save(context.dir / "report.html")


def _rows(
    found: Mapping[str, Any], children: Mapping[str, Any], times: Mapping[str, Any], metric: str
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "answer": "parent",
            "tokens": "full grid",
            "top-1 (%)": children["parent"]["accuracy"],
            "latency, measured (ms)": 1e3 * times["parent"],
            "speed-up": 1.0,
        }
    ]
    for kind, answer in found["answers"].items():
        child, timed, losses = children[kind], times["children"][kind], found["losses"][kind]
        rows.append(
            {
                "answer": TITLES[kind],
                "tokens": answer["tokens"],
                "top-1 (%)": child["accuracy"],
                "before distillation (%)": child["accuracy.before"],
                "loss, predicted": answer["loss"],
                "loss, measured": losses[metric],
                **({} if metric == "kl" else {"KL, measured (nats)": losses["kl"]}),
                "latency, predicted (ms)": 1e3 * answer["latency"],
                "latency, measured (ms)": 1e3 * timed["latency"],
                "speed-up": timed["speedup"],
                "GMAC": child["gmacs"],
                "parameters (M)": child["params"] / 1e6,
            }
        )
    names = list(dict.fromkeys(name for row in rows[::-1] for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _frontier(report: Report, context: StageContext, found: Mapping[str, Any], metric: str) -> None:
    lines = {
        kind: [(1e3 * row["latency"], row["loss"]) for row in rows]
        for kind, rows in read_stage(context.input("search"), "frontier").items()
    }
    report.section("Frontiers")
    if lines[JOINT]:
        others = {TITLES[kind]: lines[kind] for kind in (TOKENS, ARCHITECTURE) if lines[kind]}
        # Where two answers are the same, one name will do: the joint one's, which comes first.
        points = {
            (1e3 * answer["latency"], answer["loss"]): TITLES[kind]
            for kind, answer in reversed(found["answers"].items())
        }
        marked = {title: point for point, title in points.items()}
        report.figure(
            frontier_plot(
                lines[JOINT],
                x="latency (ms)",
                y=f"predicted {metric}",
                others=others,
                marked=marked,
            ),
            "Least predicted loss by latency, both together against either alone: down and left "
            "is better",
        )
    else:
        report.text("None: no share of `search.frontier` can be met.")


def _architectures(
    report: Report, found: Mapping[str, Any], problems: Mapping[int, ChoiceProblem]
) -> None:
    report.section("Where the latency went")
    answers = found["answers"]
    for kind in (TOKENS, ARCHITECTURE):
        if kind in answers and _same(answers[kind], answers[JOINT]):
            report.text(f"What both together come to is the answer by **{TITLES[kind]}**.")
    for kind in (JOINT, ARCHITECTURE):
        answer = answers.get(kind)
        if answer is None or (kind != JOINT and _same(answer, answers[JOINT])):
            continue
        problem = problems[answer["tokens"]]
        for half in (ATTENTION, MLP):
            rows = [g for g, name in enumerate(problem.groups) if name.endswith(half)]
            part = part_of(problem, rows)
            report.figure(
                allocation_plot(
                    part, [answer["choice"][g - 1] for g in rows], names=("parent", "child")
                ),
                f"{TITLES[kind].capitalize()}, {answer['tokens']} tokens: the {NAMES[half]} of "
                "every block; darker options lose more, outlines are the parent",
            )


def _same(answer: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (answer["tokens"], answer["choice"]) == (other["tokens"], other["choice"])


def _scores(report: Report, problems: Mapping[int, ChoiceProblem], metric: str) -> None:
    """The scores at the full grid, by block."""
    problem = problems[max(problems)]
    report.section("Scores")
    for half in (ATTENTION, MLP):
        rows = [g for g, name in enumerate(problem.groups) if name.endswith(half)]
        if ladders := _ladders(problem, rows):
            report.figure(
                ladder_plot(ladders, y=metric, x="block", log=False),
                f"What each option of the {NAMES[half]} costs, replaced alone, at the full grid",
            )


def _ladders(problem: ChoiceProblem, rows: Sequence[int]) -> dict[str, list[float]]:
    """Scores of every option in each group, the largest option first.

    Of a parent that is slim itself blocks differ in their options: NaN where one lacks an option,
    or has it as its own.
    """
    found = [
        {label: k for k, label in enumerate(problem.options[g]) if k != problem.reference[g]}
        for g in rows
    ]
    params = {
        label: problem.cost["params"][g, k]
        for g, options in zip(rows, found, strict=True)
        for label, k in options.items()
    }
    return {
        label: [
            float(problem.loss[g, options[label]]) if label in options else math.nan
            for g, options in zip(rows, found, strict=True)
        ]
        for label in sorted(params, key=lambda label: -params[label])
    }


def _baselines(found: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    answers = {TITLES[JOINT]: found["answers"][JOINT], **found["baselines"]}
    losses = {TITLES[JOINT]: found["losses"][JOINT], **found["losses"]}
    return [
        {
            "way": name,
            "loss, predicted": None if answer is None else answer["loss"],
            "loss, measured": None if answer is None else losses[name][metric],
            "latency, predicted (ms)": None if answer is None else 1e3 * answer["latency"],
        }
        for name, answer in answers.items()
    ]
