"""A Puzzle run as stages of files.

costs --------------------------+
calibration -> library -> scores +-> search -> child, baselines -> verify -> report
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive.core import Budget, UserError, Workload, solve_best
from adaptive.core.cost import MeasuredTable, Roofline
from adaptive.core.hardware import detect
from adaptive.core.run import Stage, StageContext, atomic_write_json
from adaptive.llm_puzzle import plan, report
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.data import Rows, read_rows, sample_rows
from adaptive.llm_puzzle.distill import build_library
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.fingerprint import fingerprint, source_fingerprint
from adaptive.llm_puzzle.gkd import distill_globally
from adaptive.llm_puzzle.latency import (
    make_clock,
    measure_model,
    measured_latency,
    mode_of,
    model_key,
    open_table,
    profile_space,
)
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.parent import (
    Parent,
    load_parent,
    parent_config,
    parent_directory,
    weight_files,
)
from adaptive.llm_puzzle.prices import Pricing, blocks_of
from adaptive.llm_puzzle.realise import child_config, realise
from adaptive.llm_puzzle.runtime import engine_of
from adaptive.llm_puzzle.score import inversions, load_scores, score_library
from adaptive.llm_puzzle.search import Found, baseline, latency_frontier, search
from adaptive.llm_puzzle.shapes import DTYPES
from adaptive.llm_puzzle.space import LayerSpace, search_space
from adaptive.llm_puzzle.verify import measure_memory, measure_pair


def stages(config: PuzzleConfig) -> list[Stage]:
    """The stages of a Puzzle run, in order."""
    if config.plan_only:
        return plan.stages(config)
    run = Puzzle(config)
    run.check_space()
    identity = [run.parent_fingerprint, config.dtype]
    text = [config.data, *map(source_fingerprint, run.text_sources)]
    budget = [config.budget, config.search, config.workload, config.cost, config.verify.tighten]
    children = ["child", *(f"baseline_{name}" for name in config.baselines)]
    return [
        # Costs come first: a budget that no child can meet is told in seconds, not after hours.
        Stage(
            "costs",
            run.price,
            (),
            [identity, config.space, config.cost, config.workload, run.batch_sizes, config.device],
        ),
        Stage("calibration", run.calibrate, (), [identity, text]),
        Stage("library", run.build, ("calibration",), [identity, config.space, config.distill]),
        Stage("scores", run.score, ("calibration", "library"), [config.score]),
        Stage(
            "search",
            run.search,
            ("scores", "costs"),
            [identity, config.score.metric, budget, config.baselines],
        ),
        *(
            Stage(
                name,
                run.make_child,
                ("calibration", "library", "search", *(["child"] if name != "child" else [])),
                [identity, config.gkd],
            )
            for name in children
        ),
        Stage("verify", run.verify, ("search", "child"), [config.verify]),
        Stage(
            "report",
            run.report,
            ("library", "scores", "search", "verify", *children),
            [config],
        ),
    ]


class Puzzle:
    """What the stages share: the parent and what follows from it, loaded when first used."""

    def __init__(self, config: PuzzleConfig):
        self.config = config
        self.directory = parent_directory(config.parent)

    @cached_property
    def parent_fingerprint(self) -> str:
        tokenizer = self.directory.glob("tokenizer*")
        weights = weight_files(self.directory)
        return fingerprint([self.directory / "config.json", *weights, *tokenizer])

    def check_space(self) -> None:
        """Refuses a search space that does not fit the parent, before anything is computed."""
        blocks = parent_config(self.directory).blocks
        search_space(self.config.space, [BlockOption.from_config(entry) for entry in blocks])

    @property
    def text_sources(self) -> list[str]:
        data = self.config.data
        return [source for source in (data.calibration, data.validation) if source]

    @property
    def batch_sizes(self) -> list[int]:
        return self.config.search.batch_sizes or [self.config.workload.batch]

    @property
    def workloads(self) -> dict[int, Workload]:
        work = self.config.workload
        return {batch: Workload(batch, work.prompt, work.output) for batch in self.batch_sizes}

    def parent(self, device: str) -> Parent:
        return _load(self.config.parent, self.parent_fingerprint, device, self.config.dtype)

    def space(self, parent: Parent) -> list[LayerSpace]:
        return search_space(self.config.space, parent.blocks)

    # --- stages ---

    def calibrate(self, ctx: StageContext) -> None:
        """Writes calibration and validation rows, and how good the parent is on the latter."""
        data, parent = self.config.data, self.parent(ctx.device)
        wanted = {"train": data.tokens, "validation": data.validation_tokens}
        if data.validation is None:
            rows = self._read(ctx, parent, data.calibration, sum(wanted.values()), "calibration")
            held = rows.first(data.validation_tokens)
            if len(held) == len(rows):
                raise UserError(
                    f"data.calibration={data.calibration} holds {rows.tokens} tokens, too few to "
                    f"hold out data.validation_tokens={data.validation_tokens} of them"
                )
            train = rows.select(torch.arange(len(held), len(rows)))
        else:
            train = self._read(ctx, parent, data.calibration, data.tokens, "calibration")
            held = self._read(ctx, parent, data.validation, data.validation_tokens, "validation")
        train.save(ctx.dir / "train.safetensors")
        held.save(ctx.dir / "validation.safetensors")
        quality = evaluate(parent.model, held.to(parent.model.device), data.batch_size)
        ctx.summary(
            {
                "parent.loss": quality.loss,
                "parent.params": sum(p.numel() for p in parent.model.parameters()),
                "data.train_tokens": train.tokens,
                "data.validation_tokens": held.tokens,
            }
        )

    def _read(self, ctx: StageContext, parent: Parent, source: str, tokens: int, key: str) -> Rows:
        data = self.config.data
        if source != "self":
            return read_rows(source, data, tokens, parent.tokenizer, f"data.{key}")
        length = min(data.length, parent.model.config.max_position_embeddings)
        batches = sample_rows(parent.model, length, tokens, data.batch_size, data.temperature)
        total = -(-tokens // (length * data.batch_size))
        shown = ctx.track(batches, total, "sampling from the parent", unit="batch")
        return Rows.concatenate(list(shown))

    def build(self, ctx: StageContext) -> None:
        """Makes the block library."""
        parent, distill = self.parent(ctx.device), self.config.distill
        space, library = self.space(parent), Library(ctx.dir)
        build_library(
            parent.model,
            space,
            _rows(ctx, "train").to(parent.model.device),
            distill,
            library,
            ctx.seed,
            self.config.data.batch_size,
            track=lambda jobs, total: ctx.track(jobs, total, "distilling variants", unit="variant"),
            log=lambda r: ctx.log(
                None, layer=r.layer, option=r.option, side=r.side, start=r.loss_start, loss=r.loss
            ),
        )
        records = list(library.records(space))
        atomic_write_json(ctx.dir / "library.json", [asdict(record) for record in records])
        ctx.summary({"library.variants": len(records)})
        if records:
            for name in ("loss_paper", "loss_ridge", "loss"):
                mean = float(np.mean([getattr(record, name) for record in records]))
                ctx.summary({f"library.{name}": mean})

    def score(self, ctx: StageContext) -> None:
        """Scores every option of every layer."""
        parent, config = self.parent(ctx.device), self.config.score
        rows = _rows(ctx, "validation").first(config.tokens).to(parent.model.device)
        scores = score_library(
            parent.model,
            self.space(parent),
            Library(ctx.input("library")),
            rows,
            config,
            ctx.dir,
            track=lambda layers, total: ctx.track(layers, total, "scoring", unit="layer"),
        )
        found = list(inversions(scores, config.metric))
        atomic_write_json(ctx.dir / "inversions.json", [asdict(inversion) for inversion in found])
        unusable = sum(int(np.isnan(s.values_AF[config.metric]).sum()) for s in scores)
        ctx.summary({"scores.inversions": len(found), "scores.not_finite": unusable})

    def price(self, ctx: StageContext) -> None:
        """Measures the latency of every option (or prepares the roofline)."""
        parent, config = self.parent(ctx.device), self.config.cost
        if config.model == "roofline":
            atomic_write_json(ctx.dir / "device.json", {"name": config.hardware or ctx.device})
            self._check_budget(parent, Roofline(detect(config.hardware or ctx.device)))
            return
        clock = make_clock(config, ctx.device)
        table = open_table(config, clock)
        known = MeasuredTable(table.origin, mode=table.mode) if config.refresh else table
        before = len(known)
        profile_space(
            parent.model.config,
            self.space(parent),
            list(self.workloads.values()),
            DTYPES[self.config.dtype],
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
        self._check_budget(parent, table)
        pricing = self._pricing(parent, table, next(iter(self.workloads)))
        # Not in the summary: after a kill the second attempt measures fewer than the first would.
        atomic_write_json(ctx.dir / "costs.json", {"measured": measured})
        ctx.summary({"costs.additivity_error": pricing.additivity_error()})

    def search(self, ctx: StageContext) -> None:
        """Finds the child and the baselines' choices."""
        config, parent = self.config, self.parent(ctx.device)
        latency, user_table = self._latency_model(ctx)
        scores = load_scores(ctx.input("scores"))
        pricings = {b: self._pricing(parent, latency, b) for b in self.workloads}
        problems = {b: p.problem(scores, config.score.metric) for b, p in pricings.items()}

        checks: list[dict[str, float]] = []

        def measure(batch: int, choice: np.ndarray) -> float:
            assert user_table is not None
            child = child_config(parent.model.config, blocks_of(pricings[batch].space, choice))
            clock = make_clock(config.cost, ctx.device)
            work, dtype = self.workloads[batch], DTYPES[config.dtype]
            limit = config.verify.seconds / 3
            measure_model(parent.model.config, child, work, dtype, user_table, clock, limit)
            seconds = measured_latency(user_table, model_key(child), work, dtype)
            predicted = problems[batch].total(choice)["latency"]
            checks.append({"predicted": predicted, "measured": seconds})
            return seconds

        check = measure if user_table is not None else None
        budget = Budget(config.budget.limits())
        found = search(problems, budget, config.search, check, config.verify.tighten)
        choices: dict[str, Any] = {"child": found.allocation.choice.tolist()}
        reasons: dict[str, str | None] = {}
        for name in config.baselines:
            choice, reason = baseline(name, found, ctx.seed, check, config.verify.tighten)
            choices[name] = None if choice is None else choice.tolist()
            if choice is None:
                reasons[f"baseline.{name}.reason"] = reason
                reasons[f"baseline.{name}.loss"] = None
        space = pricings[found.batch].space
        blocks = {
            name: None if c is None else [b.to_config() for b in blocks_of(space, np.array(c))]
            for name, c in choices.items()
        }
        _save_found(ctx.dir, found, choices, blocks)
        atomic_write_json(ctx.dir / "checks.json", checks)
        rows = latency_frontier(found.problem, config.search.frontier, config.search, found.budget)
        atomic_write_json(ctx.dir / "frontier.json", rows)
        total, reference = found.allocation.cost, found.problem.reference_cost
        metric = config.score.metric
        ctx.summary(
            {
                "search.gap": found.allocation.gap,
                "search.seconds": found.allocation.seconds,
                "search.status": found.allocation.status,
                "search.solver": found.allocation.solver,
                "search.batch": found.batch,
                "search.searches": max(1, len(found.promises)),
                "latency.child.predicted": total["latency"],
                "speedup.predicted": reference["latency"] / total["latency"],
                "latency.is_bound": bool(latency.is_bound),
                "memory.parent.predicted": reference["memory"],
                "memory.child.predicted": total["memory"],
                "child.score.predicted": found.allocation.loss,
                "child.kl.predicted": found.allocation.loss if metric == "kl" else None,
                "budget.met": found.met,
                **reasons,
            }
        )

    def make_child(self, ctx: StageContext) -> None:
        """Realises a choice, distils it globally and says how good it is before and after."""
        parent = self.parent(ctx.device)
        is_child = ctx.name == "child"
        name = "child" if is_child else ctx.name.removeprefix("baseline_")
        chosen = _read(ctx.input("search") / "architectures.json")
        if chosen[name] is None:
            return  # the search stage has said why
        if not is_child and chosen[name] == chosen["child"]:
            result = _read(ctx.input("child") / "quality.json")
        else:
            result = self._distil(ctx, parent, [BlockOption.from_config(b) for b in chosen[name]])
        atomic_write_json(ctx.dir / "quality.json", result)
        if is_child:
            ctx.summary({f"child.{key}": value for key, value in result.items()})
            ctx.summary({"gkd.tokens": result["gkd.tokens"]})
        else:
            ctx.summary(
                {
                    f"baseline.{name}.loss": result["loss.gkd"],
                    f"baseline.{name}.loss.bld": result["loss.bld"],
                    f"baseline.{name}.kl": result["kl.gkd"],
                }
            )

    def _distil(
        self, ctx: StageContext, parent: Parent, blocks: list[BlockOption]
    ) -> dict[str, float]:
        config, device = self.config, parent.model.device
        child = realise(parent.model, blocks, Library(ctx.input("library")))
        rows, size = _rows(ctx, "validation").to(device), config.data.batch_size
        before = evaluate(child, rows, size, parent.model)
        tokens = distill_globally(
            child,
            parent.model,
            _rows(ctx, "train").to(device),
            config.gkd,
            # All architectures see the same rows in the same order.
            config.seed,
            track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
            log=ctx.log,
        )
        after = evaluate(child, rows, size, parent.model)
        if not math.isfinite(after.loss):
            raise UserError(
                f"[{ctx.name}] global distillation diverged: lower gkd.learning_rate="
                f"{config.gkd.learning_rate}, or set dtype=float32"
            )
        save_child(child, parent.tokenizer, ctx.dir / "model")
        return {
            "loss.bld": before.loss,
            "loss.gkd": after.loss,
            "kl.bld": before.kl,
            "kl.gkd": after.kl,
            "top1.bld": before.top1,
            "top1.gkd": after.top1,
            "params": sum(p.numel() for p in child.parameters()),
            "gkd.tokens": tokens,
        }

    def verify(self, ctx: StageContext) -> None:
        """Measures the child and its parent in turns."""
        parent = self.parent(ctx.device)
        child = load_parent(
            str(ctx.input("child") / "model"), parent.model.device, parent.model.dtype
        ).model
        summary = _read(ctx.input("search") / "search.json")
        work = self.workloads[summary["batch"]]
        clock, dtype = make_clock(self.config.cost, ctx.device), DTYPES[self.config.dtype]
        measured = measure_pair(
            parent.model.config, child.config, work, dtype, clock, self.config.verify.seconds
        )
        predicted, reference = summary["allocation"]["cost"], summary["reference"]
        # Relative to the parent on both sides: what the machine was busy with cancels. A roofline
        # is a bound and has no error.
        promised = reference["latency"] / predicted["latency"]
        bound = self.config.cost.model == "roofline"
        memory = measure_memory(engine_of(child), work)
        result = {
            "latency.parent": measured.parent,
            "latency.child.measured": measured.child,
            "speedup.measured": measured.speedup,
            "latency.error": None if bound else measured.speedup / promised - 1,
            "memory.child.measured": memory,
            "memory.error": predicted["memory"] / memory - 1,
            "verify.settled": measured.settled,
        }
        atomic_write_json(ctx.dir / "verify.json", result)
        ctx.summary({name: value for name, value in result.items() if name != "verify.settled"})

    def report(self, ctx: StageContext) -> None:
        """Writes the page."""
        report.write(ctx, self.config)

    # --- helpers ---

    def _pricing(self, parent: Parent, latency: Any, batch: int) -> Pricing:
        return Pricing(
            parent.model.config,
            self.space(parent),
            self.workloads[batch],
            latency,
            DTYPES[self.config.dtype],
        )

    def _check_budget(self, parent: Parent, latency: Any) -> None:
        """Raises where no child of the space meets the budget, whatever its quality."""
        problems = {b: self._pricing(parent, latency, b).unscored() for b in self.workloads}
        solve_best(problems, Budget(self.config.budget.limits()), solver="lagrangian")

    def _latency_model(self, ctx: StageContext) -> tuple[Any, MeasuredTable | None]:
        """The cost model of latency, and the table that further measurements are added to."""
        cost = self.config.cost
        if cost.model == "roofline":
            return Roofline(detect(cost.hardware or ctx.device)), None
        run_table = MeasuredTable.load(
            ctx.input("costs") / "latency.csv", mode=mode_of(cost, ctx.device)
        )
        table = open_table(cost, make_clock(cost, ctx.device))
        for row in run_table:  # what this run measured stands, whatever became of the user's table
            table.add(row)
        return run_table, table


@lru_cache(maxsize=1)
def _load(name: str, mark: str, device: str, dtype: str) -> Parent:
    """The parent, kept for the stages to come; ``mark`` tells changed files from cached ones."""
    return load_parent(name, torch.device(device), getattr(torch, dtype))


def _rows(ctx: StageContext, name: str) -> Rows:
    return Rows.load(ctx.input("calibration") / f"{name}.safetensors")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _save_found(
    directory: Path, found: Found, choices: dict[str, Any], blocks: dict[str, Any]
) -> None:
    atomic_write_json(directory / "problem.json", found.problem.to_json())
    atomic_write_json(directory / "architectures.json", blocks)
    atomic_write_json(
        directory / "search.json",
        {
            "batch": found.batch,
            "budget": found.budget.to_json(),
            "limits": found.limits.to_json(),
            "allocation": found.allocation.to_json(),
            "reference": dict(found.problem.reference_cost),
            "promises": found.promises,
            "choices": choices,
        },
    )
