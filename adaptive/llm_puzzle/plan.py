"""Planning without weights: what a search space costs, from the parent's shape alone."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from adaptive.core import Budget, UserError, Workload, format_quantity
from adaptive.core.blockwise.search import latency_frontier
from adaptive.core.cost import CostModel
from adaptive.core.hardware import detect
from adaptive.core.report import Report, choice_text, frontier_plot
from adaptive.core.run import Stage, StageContext, atomic_write_json, atomic_write_text, say
from adaptive.llm_puzzle.arch import ARCHITECTURES, architecture, architecture_file, price
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.deploy import latency_of_another_device
from adaptive.llm_puzzle.export.restrict import restriction
from adaptive.llm_puzzle.isotonic import repair
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.parent import parent_config, parent_directory
from adaptive.llm_puzzle.prices import Pricing
from adaptive.llm_puzzle.score import load_scores
from adaptive.llm_puzzle.settings import ShapeConfig
from adaptive.llm_puzzle.shapes import DTYPES
from adaptive.llm_puzzle.space import search_space

BOUND = "lower bound (roofline)"


def stages(config: PuzzleConfig) -> list[Stage]:
    """One stage that prices the space and says what a real run needs."""
    scores = None if config.score.path is None else _scores_file(config.score.path)
    depends = [config, None if scores is None else scores.read_text(encoding="utf-8")]
    if config.arch is not None and config.arch not in ARCHITECTURES:
        depends.append(architecture_file(config.arch).read_text(encoding="utf-8"))
    return [Stage("plan", lambda ctx: plan(ctx, config), (), depends)]


def plan(ctx: StageContext, config: PuzzleConfig) -> None:
    """Writes ``plan.csv`` (a row an option), the report, and a frontier where there are scores."""
    model = planned_parent(config)
    blocks = [BlockOption.from_config(entry) for entry in model.blocks]
    space = search_space(config.space, blocks)
    restricted = restriction(config, model, space)
    work = config.workload
    device = detect(config.cost.hardware or ctx.device)
    shipped = config.cost.model == "shipped"
    latency: CostModel = latency_of_another_device(config.cost, ctx.device)
    kind = "sum of measured blocks" if shipped else BOUND
    suffix = "predicted" if shipped else "bound"
    pricing = Pricing(
        model,
        space,
        Workload(work.batch, work.prompt, work.output),
        latency,
        DTYPES.get(config.dtype, config.dtype),
    )
    fixed = pricing.fixed()
    priced = {block: pricing.block_cost(block) for layer in space for block in layer.blocks}
    whole = {
        name: fixed[name] + sum(priced[layer.parent][name] for layer in space) for name in fixed
    }
    least = {
        name: fixed[name] + sum(min(priced[b][name] for b in layer.blocks) for layer in space)
        for name in fixed
    }
    rows = [{"option": block.label, **priced[block]} for block in space[0].blocks]
    atomic_write_text(ctx.dir / "plan.csv", _csv(rows))
    tokens = pricing.workload.tokens
    summary: dict[str, Any] = {
        "plan.layers": len(space),
        "plan.options": max(len(layer.blocks) for layer in space),
        "plan.log10_architectures": sum(math.log10(len(layer.blocks)) for layer in space),
        "plan.device": device.name,
        "parent.params": int(whole["params"]),
        "parent.memory": whole["memory"],
        "parent.flops": whole["flops"],
        f"latency.parent.{suffix}": whole["latency"],
        f"throughput.parent.{suffix}": tokens / whole["latency"],
        "smallest.params": int(least["params"]),
        "smallest.memory": least["memory"],
        f"smallest.latency.{suffix}": least["latency"],
    }
    page = Report(f"Plan: {config.name}", f"{config.parent} on {device.name}")
    page.numbers(
        {
            "parameters": f"{whole['params'] / 1e9:.2f} B",
            "memory": format_quantity(whole["memory"], "memory"),
            "latency": format_quantity(whole["latency"], "latency"),
        },
        {"memory": "weights and KV cache", "latency": kind},
    )
    page.section("Options of a layer").table(
        [_shown(row) for row in rows],
        f"Each option of one layer at batch {work.batch}, {work.prompt} tokens in and "
        f"{work.output} out. Latency is a {kind}.",
    )
    if config.arch is not None:
        summary |= _published(page, config, pricing, whole, suffix)
    if config.score.path is None:
        refusal = missing_scores(config)
        say(f"[plan] no frontier: {refusal}")
        summary["frontier"] = f"refused: {refusal}"
        page.section("Frontier").text(f"None: {refusal}.")
    else:
        metric, scores = config.score.metric, load_scores(Path(config.score.path))
        if config.search.isotonic:
            scores = repair(scores, metric).scores
        problem = pricing.problem(scores, metric)
        budget = Budget(config.budget.limits())
        problem = restricted.apply({0: problem}, budget, solver=config.search.solver)[0]
        found = latency_frontier(problem, config.search.frontier, config.search, budget)
        atomic_write_json(ctx.dir / "frontier.json", found)
        solved = sorted((row for row in found if "loss" in row), key=lambda row: row["latency"])
        points = [(1e3 * row["latency"], row["loss"]) for row in solved]
        notes = {"frontier": [choice_text(problem, row["choice"]) for row in solved]}
        x = f"latency (ms), {kind}"
        figure = frontier_plot(points, x=x, y=config.score.metric, notes=notes)
        page.section("Frontier").figure(figure, "Optimal loss at each latency.")
        summary["frontier"] = f"{len(points)} points in frontier.json"
    ctx.summary(summary)
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def _published(
    page: Report, config: PuzzleConfig, pricing: Pricing, parent: dict[str, float], suffix: str
) -> dict[str, Any]:
    """Prices the published child that ``arch`` names, beside the parent where it is its child."""
    assert config.arch is not None
    model, tokens = architecture(config.arch), pricing.workload.tokens
    child = price(model, pricing.workload, pricing.dtype, pricing.latency)
    found = {
        "arch": config.arch,
        "arch.layers": model.num_hidden_layers,
        "child.params": int(child["params"]),
        "child.memory": child["memory"],
        "child.flops": child["flops"],
        f"latency.child.{suffix}": child["latency"],
        f"throughput.child.{suffix}": tokens / child["latency"],
    }
    rows = [{"model": config.arch, **child}]
    alike = (model.num_hidden_layers, model.hidden_size) == (
        len(pricing.space),
        pricing.config.hidden_size,
    )
    if alike:
        rows.insert(0, {"model": "parent", **{name: parent[name] for name in child}})
        found[f"speedup.{suffix}"] = parent["latency"] / child["latency"]
    page.section("Published child").table(
        [_shown(row) for row in rows],
        f"{config.arch} whole, embedding and head included."
        + ("" if alike else " It is no child of this run's parent, so nothing is beside it."),
    )
    return found


def missing_scores(config: PuzzleConfig) -> str:
    """The sentence that says why there is no frontier and how to get one."""
    return (
        "scores are missing, and made-up ones would make up the answer; score the library with "
        f"`python -m adaptive.run +exp={config.name} plan_only=false parent=DIR` where the "
        "parent's weights are, then plan with score.path=RUN/artifacts/scores"
    )


def planned_parent(config: PuzzleConfig) -> PuzzleModelConfig:
    """The parent's configuration, from ``shape`` where it is given, else from its directory."""
    if config.shape is None:
        return parent_config(parent_directory(config.parent))
    return from_shape(config.shape)


def from_shape(shape: ShapeConfig) -> PuzzleModelConfig:
    """The configuration of a homogeneous Llama."""
    block = {
        "attention": {"kind": "gqa", "num_key_value_heads": shape.kv_heads},
        "ffn": {"kind": "mlp", "intermediate_size": shape.intermediate},
    }
    return PuzzleModelConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        blocks=[block] * shape.layers,
    )


def _scores_file(path: str) -> Path:
    file = Path(path) / "scores.json"
    if not file.is_file():
        raise UserError(
            f"score.path={path} holds no scores.json; give the artifacts/scores directory of a "
            "run that has scored this parent's library (scores are measured, never made up)"
        )
    return file


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else format_quantity(value, name)
        for name, value in row.items()
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
