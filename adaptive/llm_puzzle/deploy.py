"""The stages that know the hardware: prices of the options, search, verification."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adaptive.core import Budget, ChoiceProblem, InfeasibleError, solve_best
from adaptive.core.blockwise.search import Found, baseline, latency_frontier
from adaptive.core.blockwise.search import search as search_child
from adaptive.core.cost import CostModel, MeasuredTable, Origin, Roofline, shipped_table
from adaptive.core.engine.verify import stride_of
from adaptive.core.hardware import detect
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle import fusion
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.export.restrict import masked
from adaptive.llm_puzzle.latency import (
    make_clock,
    measure_model,
    measured_latency,
    model_key,
    open_table,
    profile_space,
)
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.prices import Pricing, blocks_of
from adaptive.llm_puzzle.realise import child_config, realise_child
from adaptive.llm_puzzle.rounds import (
    Scored,
    library_after,
    part_way,
    scores_stage,
    search_before,
)
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.score import compare
from adaptive.llm_puzzle.settings import CostConfig
from adaptive.llm_puzzle.shapes import DTYPES
from adaptive.llm_puzzle.solutions import best, diverse, table
from adaptive.llm_puzzle.verify import measure_memory, measure_pair

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle


def latency_of_another_device(config: CostConfig, device: str) -> CostModel:
    """Latencies that are not measured here: a bound, or a table that comes with the package.

    Args:
        config: its ``hardware`` names the device; None is the run's own.
        device: of the run.
    """
    name = config.hardware or detect(device).name
    if config.model != "shipped":
        return Roofline(detect(name))
    return shipped_table(
        name,
        "graph" if config.mode == "auto" else config.mode,
        # Of this very device only what was measured with this very torch is a prediction.
        origin=None if config.hardware else Origin.here(device),
        force=config.force,
        extrapolate=config.extrapolate,
    )


def price(run: Puzzle, ctx: StageContext) -> None:
    """Measures the latency of every option, or makes sure that it is known from elsewhere."""
    config = run.config.cost
    if config.model != "measured":
        _check_budget(run, latency_of_another_device(config, ctx.device))
        name = config.hardware or detect(ctx.device).name
        atomic_write_json(ctx.dir / "device.json", {"name": name})
        return
    clock = make_clock(config, ctx.device)
    table = open_table(config, clock)
    known = MeasuredTable(table.origin, mode=table.mode) if config.refresh else table
    before = len(known)
    profile_space(
        run.parent_config,
        run.space,
        list(run.workloads.values()),
        DTYPES[run.config.dtype],
        known,
        clock,
        config,
        track=ctx.track,
    )
    measured = len(known) - before
    for row in known:
        table.add(row)
    table.save()
    table.save(ctx.dir / "latency.csv")
    _check_budget(run, table)
    pricing = pricing_of(run, table, next(iter(run.workloads)))
    # Not in the summary: after a kill the second attempt measures fewer than the first would.
    atomic_write_json(ctx.dir / "costs.json", {"measured": measured})
    ctx.summary({"costs.additivity_error": pricing.additivity_error()})


def step(run: Puzzle, ctx: StageContext, index: int) -> None:
    """Finds the child of one round before the last, part of the way to the budget.

    The batch size is chosen once, for the whole budget, in the first round.
    """
    config = run.config
    latency, _ = latency_model(run, ctx)
    first = index == 1
    scored = Scored.load(ctx.input("scores" if first else f"scores_{index - 1}"), run.space)
    repaired = scored.repaired(run.space, config.score.metric, config.search.isotonic)
    batches = run.batches if first else [_batch(ctx, f"search_{index - 1}")]
    scores, metric = repaired.scores, config.score.metric
    problems = restricted(
        run, {b: pricing_of(run, latency, b).problem(scores, metric) for b in batches}
    )
    budget = Budget(config.budget.limits())
    batch = search_child(problems, budget, config.search).batch
    limits = part_way(budget, problems[batch], index / config.search.rounds)
    found = search_child({batch: problems[batch]}, limits, config.search)
    blocks = blocks_of(run.space, found.allocation.choice)
    reference, cost = found.problem.reference_cost, found.allocation.cost
    atomic_write_json(
        ctx.dir / "step.json",
        {
            "batch": batch,
            "limits": limits.to_json(),
            "allocation": found.allocation.to_json(),
            "blocks": [block.to_config() for block in blocks],
            "kl.predicted": scored.predicted(run.space, blocks),
            "speedup": reference["latency"] / cost["latency"],
        },
    )


def search(run: Puzzle, ctx: StageContext) -> None:
    """Finds the child and the baselines' choices.

    The baselines go by the scores around the parent, whatever the number of rounds, and have the
    whole space where the child has a reduced one.

    Summary: beside the child's costs, ``child.kl.predicted`` (of several rounds: the measured KL of
    the last partial child and the changes scored around it), ``rounds``, ``scores.repaired`` and
    ``scores.repair_max`` (pairs of options that the isotonic repair changed, and by how much at
    most, in the scores that this search goes by), ``search.solutions`` (found; fewer than asked
    for where no more differ enough) and ``search.kept`` (which of them, from 1).
    """
    config, metric = run.config, run.config.score.metric
    rounds, before = config.search.rounds, search_before(config.search, run.coupled)
    latency, user_table = latency_model(run, ctx)
    scored = Scored.load(ctx.input(scores_stage(config.search, run.coupled)), run.space)
    # Pairs trained together are no rungs of a ladder of halves trained apart.
    isotonic = config.search.isotonic
    repaired = scored.repaired(run.space, metric, isotonic and not run.coupled)
    base = scored.own[metric]
    batches = [_batch(ctx, before)] if before else run.batches
    pricings = {b: pricing_of(run, latency, b) for b in batches}
    budget = Budget(config.budget.limits())
    problems = restricted(run, {b: p.problem(repaired.scores, metric) for b, p in pricings.items()})

    checks: list[dict[str, float]] = []
    check = checker(run, ctx, problems, user_table, checks)
    attempts = config.search.tighten

    def find(exclude: Sequence[np.ndarray]) -> Found:
        try:
            return search_child(
                problems,
                budget,
                config.search,
                check,
                attempts,
                exclude=exclude,
                diversity=config.search.diversity,
            )
        except InfeasibleError:
            if not run.coupled or exclude:
                raise
            # A limit that was tightened is beyond the reduced space: what its search was left with.
            earlier = _only(run, problems, ctx.input("search_decoupled"))
            return search_child(earlier, budget, config.search, check, 0)

    solutions, shortage = diverse(find, config.search.n_solutions)
    kept, rows = 0, []
    if config.search.n_solutions > 1:
        kl = _measured_kl(run, ctx, [s.allocation.choice for s in solutions])
        kept, rows = best(solutions, kl), table(solutions, kl, base)
    found = solutions[kept]
    atomic_write_json(
        ctx.dir / "solutions.json", {"solutions": rows, "kept": kept, "shortage": shortage}
    )
    choices: dict[str, Any] = {"child": found.allocation.choice.tolist()}
    reasons: dict[str, str | None] = {}
    around_parent = found
    if before:
        first = Scored.load(ctx.input("scores"), run.space)
        scores = first.repaired(run.space, metric, isotonic).scores
        problem = pricings[found.batch].problem(scores, metric)
        around_parent = replace(found, problem=restricted(run, {0: problem})[0])
    for name in config.baselines:
        choice, reason = baseline(name, around_parent, ctx.seed, check, attempts)
        choices[name] = None if choice is None else choice.tolist()
        if choice is None:
            reasons[f"baseline.{name}.reason"] = reason
            reasons[f"baseline.{name}.loss"] = None
    space = pricings[found.batch].space
    blocks = {
        name: None if c is None else [b.to_config() for b in blocks_of(space, np.array(c))]
        for name, c in choices.items()
    }
    _save_found(ctx.dir, found, base, choices, blocks)
    atomic_write_json(ctx.dir / "checks.json", checks)
    points = latency_frontier(
        found.problem, config.search.frontier, config.search, found.budget, base
    )
    atomic_write_json(ctx.dir / "frontier.json", points)
    total, reference = found.allocation.cost, found.problem.reference_cost
    loss = base + found.allocation.loss
    ctx.summary(
        {
            "search.gap": found.allocation.gap,
            "search.seconds": found.allocation.seconds,
            "search.status": found.allocation.status,
            "search.solver": found.allocation.solver,
            "search.batch": found.batch,
            "search.searches": max(1, len(found.promises)),
            "search.solutions": len(solutions),
            "search.kept": kept + 1,
            "rounds": rounds,
            "scores.repaired": repaired.entries,
            "scores.repair_max": repaired.largest,
            "latency.child.predicted": total["latency"],
            "speedup.predicted": reference["latency"] / total["latency"],
            "latency.is_bound": bool(latency.is_bound),
            "memory.parent.predicted": reference["memory"],
            "memory.child.predicted": total["memory"],
            "child.score.predicted": loss,
            "child.kl.predicted": loss if metric == "kl" else None,
            "budget.met": found.met,
            **reasons,
        }
    )


def checker(
    run: Puzzle,
    ctx: StageContext,
    problems: dict[int, ChoiceProblem],
    table: MeasuredTable | None,
    checks: list[dict[str, float]],
) -> Callable[[int, np.ndarray], float] | None:
    """Measures the latency of a choice on the device; None where latency comes from elsewhere, or
    is not to be measured before the child is made (``search.tighten``).

    Args:
        run: the run.
        ctx: of the stage that searches.
        problems: by batch size.
        table: that measurements are added to.
        checks: is added to, the predicted and the measured latency of each choice.
    """
    if table is None or not run.config.search.tighten:
        return None
    config, parent = run.config, run.parent_config

    def measure(batch: int, choice: np.ndarray) -> float:
        child = child_config(parent, blocks_of(run.space, choice))
        clock = make_clock(config.cost, ctx.device)
        work, dtype = run.workloads[batch], DTYPES[config.dtype]
        limit = config.verify.seconds / 3
        measure_model(parent, child, work, dtype, table, clock, limit)
        seconds = measured_latency(table, model_key(child), work, dtype)
        predicted = problems[batch].total(choice)["latency"]
        checks.append({"predicted": predicted, "measured": seconds})
        return seconds

    return measure


def _only(
    run: Puzzle, problems: dict[int, ChoiceProblem], directory: Path
) -> dict[int, ChoiceProblem]:
    """The problems with nothing to choose: the child of an earlier search is left."""
    found = json.loads((directory / "step.json").read_text(encoding="utf-8"))
    mask = [
        [block.to_config() == chosen for block in layer.blocks]
        for layer, chosen in zip(run.space, found["blocks"], strict=True)
    ]
    return {batch: masked(problem, mask) for batch, problem in problems.items()}


def restricted(run: Puzzle, problems: dict[int, ChoiceProblem]) -> dict[int, ChoiceProblem]:
    """The problems with the options that exports and the engine can do with."""
    options, budget = run.config.search, Budget(run.config.budget.limits())
    return run.restriction.apply(
        problems, budget, solver=options.solver, gap=options.gap, time_limit=options.time_limit
    )


def _measured_kl(run: Puzzle, ctx: StageContext, choices: Sequence[np.ndarray]) -> list[float]:
    """KL from the parent, on all validation rows, of children as the library gives them."""
    parent = run.parent(ctx.device).model
    library = library_after(run, ctx, run.config.search.rounds - 1)
    rows = Rows.load(ctx.input("calibration") / "validation.safetensors").to(parent.device)
    return [
        compare(
            parent,
            realise_child(parent, blocks_of(run.space, choice), library),
            rows,
            run.config.score.batch_tokens,
        )["kl"]
        for choice in ctx.track(choices, len(choices), "measuring solutions", unit="child")
    ]


def verify(run: Puzzle, ctx: StageContext) -> None:
    """Measures the child and its parent in turns."""
    device, config = ctx.device, run.config
    directory = str(ctx.input("child") / "model")
    dtype = getattr(torch, config.dtype)
    child = load_parent(directory, torch.device(device), dtype).model
    found = json.loads((ctx.input("search") / "search.json").read_text(encoding="utf-8"))
    work, name = run.workloads[found["batch"]], DTYPES[config.dtype]
    clock = make_clock(config.cost, device)
    measured = measure_pair(
        run.parent_config, child.config, work, name, clock, config.verify.seconds
    )
    predicted, reference = (fusion.kept(ctx) or found["allocation"])["cost"], found["reference"]
    # Relative to the parent on both sides: what the machine was busy with cancels. A bound has no
    # error, and what was promised for another device cannot be held against this one.
    promised = reference["latency"] / predicted["latency"]
    elsewhere = config.cost.hardware not in (None, detect(device).name)
    comparable = config.cost.model != "roofline" and not elsewhere
    memory = measure_memory(engine_of(child), work)
    # The engine holds every weight in the run's dtype, which is not what fewer bits promise.
    rounded = any(half.get("bits") for block in child.config.blocks for half in block.values())
    result = {
        "latency.parent": measured.parent,
        "latency.child.measured": measured.child,
        "speedup.measured": measured.speedup,
        "latency.error": measured.speedup / promised - 1 if comparable else None,
        "memory.child.measured": memory,
        "memory.error": None if rounded else predicted["memory"] / memory - 1,
    }
    atomic_write_json(ctx.dir / "verify.json", {**result, "verify.settled": measured.settled})
    ctx.summary(result)


def _batch(ctx: StageContext, stage: str) -> int:
    """The batch size that an earlier search has chosen."""
    path = ctx.input(stage) / "step.json"
    return json.loads(path.read_text(encoding="utf-8"))["batch"]


def pricing_of(run: Puzzle, latency: CostModel, batch: int) -> Pricing:
    """Prices the run's options at one of its batch sizes."""
    dtype = DTYPES[run.config.dtype]
    return Pricing(run.parent_config, run.space, run.workloads[batch], latency, dtype)


def _check_budget(run: Puzzle, latency: CostModel) -> None:
    """Raises where no child of the space meets the budget, whatever its quality."""
    unscored = {b: pricing_of(run, latency, b).unscored() for b in run.workloads}
    budget = Budget(run.config.budget.limits())
    problems = run.restriction.apply(unscored, budget, solver="lagrangian")
    solve_best(problems, budget, solver="lagrangian")


def latency_model(run: Puzzle, ctx: StageContext) -> tuple[CostModel, MeasuredTable | None]:
    """The cost model of latency, and the table that further measurements are added to."""
    cost = run.config.cost
    if cost.model != "measured":
        return latency_of_another_device(cost, ctx.device), None
    file = ctx.input("costs") / "latency.csv"
    clock = make_clock(cost, ctx.device)
    run_table = MeasuredTable.load(
        file, clock.origin, mode=clock.mode, context_stride=stride_of(ctx.device)
    )
    table = open_table(cost, clock)
    for row in run_table:  # what this run measured stands, whatever became of the user's table
        table.add(row)
    return run_table, table


def _save_found(
    directory: Path, found: Found, base: float, choices: dict[str, Any], blocks: dict[str, Any]
) -> None:
    atomic_write_json(directory / "problem.json", found.problem.to_json())
    atomic_write_json(directory / "architectures.json", blocks)
    atomic_write_json(
        directory / "search.json",
        {
            "batch": found.batch,
            "budget": found.budget.to_json(),
            "limits": found.limits.to_json(),
            # What the model that scores were taken around loses; losses are relative to it.
            "base": base,
            "allocation": found.allocation.to_json(),
            "reference": dict(found.problem.reference_cost),
            "promises": found.promises,
            "choices": choices,
        },
    )
