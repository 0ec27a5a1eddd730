"""The stages of a ``puzzle_vit`` run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_write_json, say
from adaptive.core.training import record_line
from adaptive.quadformer.data import ImageSet
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.evaluate.stages import read_stage
from adaptive.quadformer.latency import tokens_for
from adaptive.quadformer.models import load_trained, save_trained
from adaptive.quadformer.puzzle import local, search
from adaptive.quadformer.puzzle.children import distil_whole, hollow, realise
from adaptive.quadformer.puzzle.config import ANSWERS, JOINT
from adaptive.quadformer.puzzle.costs import Costs, measure_costs
from adaptive.quadformer.puzzle.images import Augmented, plain_batches
from adaptive.quadformer.puzzle.initialise import block_moments, variant
from adaptive.quadformer.puzzle.library import Library, VariantRecord
from adaptive.quadformer.puzzle.parent import Run
from adaptive.quadformer.puzzle.problems import absolute, problem_at
from adaptive.quadformer.puzzle.score import Scores, measured_loss, score_at
from adaptive.quadformer.puzzle.verify import time_children

NEARBY = 0.93  # of the tokens that a latency buys: searched at, too, as clocks are not exact


def decode(run: Run, ctx: StageContext) -> None:
    """Decodes both splits into the cache."""
    counts = {split: len(run.images(ctx, split, "cpu")) for split in ("train", "valid")}
    run.parts(run.images(ctx, "train", "cpu"))  # refuses what leaves nothing to learn from
    classes = run.load_parent().classes
    atomic_write_json(ctx.dir / "images.json", {"classes": classes, **counts})
    ctx.summary({f"images.{split}": count for split, count in counts.items()})


def choose_grid(run: Run, ctx: StageContext) -> None:
    """The numbers of tokens to search at; among them, what the budget buys the parent itself."""
    model, config = run.model(ctx), run.config
    feasible = list(model.geometry.feasible())
    wanted = set(config.num_tokens)
    for tokens in wanted:
        model.check_tokens(tokens)
    if not wanted:
        steps = np.linspace(0, len(feasible) - 1, min(config.points, len(feasible)))
        wanted = {feasible[round(step)] for step in steps}
    try:
        bought = tokens_for(
            model,
            str(config.budget.latency),
            batch=config.evaluate.speed_batch,
            settings=config.evaluate,
        ).tokens
        wanted |= {bought, model.geometry.nearest(NEARBY * bought)}
    except UserError as error:
        say(f"[grid] no number of tokens meets the budget alone: {error}")
    atomic_write_json(ctx.dir / "grid.json", {"tokens": sorted(wanted | {feasible[-1]})})


def price(run: Run, ctx: StageContext) -> None:
    """Times every option at every number of tokens."""
    found = measure_costs(
        run.model(ctx),
        run.space(),
        run.tokens(ctx),
        run.clock(ctx),
        run.config.cost,
        run.config.evaluate,
        track=ctx.track,
    )
    atomic_write_json(ctx.dir / "costs.json", {"costs": [costs.to_json() for costs in found]})
    full = found[-1]
    ctx.summary(
        {
            "parent.latency": full.whole,
            "parent.num_tokens": full.tokens,
            "additivity.error": 1 / full.scale - 1,
            "shell.share": full.shell / full.whole,
        }
    )


def build_library(run: Run, ctx: StageContext) -> None:
    """Fits every variant in closed form, distils it locally, and keeps the better."""
    model, config, space = run.model(ctx), run.config.library, run.space()
    images, tokens, amp = run.images(ctx, "train"), run.tokens(ctx), run.config.evaluate.amp
    parts = run.parts(images)
    fitted = [group for group in space if group.variants]
    learn = parts.learn[: config.images]
    chance = np.random.default_rng(ctx.seed)
    batches = [(index_B, int(chance.choice(tokens))) for index_B in learn.split(config.batch)]
    made: dict[Any, Any] = {}
    shown = ctx.track(_fitting(images, batches, config.batch, model), len(batches), "fitting")
    moments = block_moments(model, shown, [(g.block, g.half) for g in fitted])
    for group in fitted:
        for size in group.variants:
            found = moments.pop((group.block, group.half)) if size == group.variants[-1] else (
                moments[group.block, group.half]
            )  # fmt: skip
            block = model.vit.blocks[group.block]
            made[group, size] = variant(block, group, size, found, config.ridge)

    def held() -> Iterator[Tensor]:
        batches = plain_batches(images, parts.held, config.batch, model)
        return (image_BCHW for image_BCHW, _ in batches)

    start = local.held_out_errors(model, made, held(), tokens, amp)
    first = {key: copy.deepcopy(half.state_dict()) for key, half in made.items()}
    loss = start
    if config.steps and made:
        drawn = Augmented(images, parts.learn, config.batch, model, run.config.augment, ctx.seed)

        def log(**record: Any) -> None:
            ctx.log(**record)
            say(f"[library] {record_line(record)}")

        local.distil(
            model,
            made,
            drawn,
            tokens,
            config,
            ctx.dir,
            amp=amp,
            track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
            log=log,
        )
        loss = local.held_out_errors(model, made, held(), tokens, amp)
    library = Library(ctx.dir)
    records = []
    for (group, size), half in made.items():
        better = loss[group, size] < start[group, size]  # not where it is NaN
        if not better:
            half.load_state_dict(first[group, size])
        records.append(
            VariantRecord(
                group.block,
                group.half,
                size,
                sum(weight.numel() for weight in half.parameters()),
                start[group, size],
                loss[group, size] if better else start[group, size],
                config.steps if better else 0,
            )
        )
        library.save(group, half, records[-1])
    atomic_write_json(ctx.dir / "library.json", [asdict(record) for record in records])
    ctx.summary({"library.variants": len(records)})
    if records:
        for name in ("loss_start", "loss"):
            mean = float(np.mean([getattr(record, name) for record in records]))
            ctx.summary({f"library.{name}": mean})


def score(run: Run, ctx: StageContext) -> None:
    """Scores every option at every number of tokens, one file each."""
    images, config, tokens = run.images(ctx, "train"), run.config.score, run.tokens(ctx)
    index_N = run.parts(images).score
    model, space, library = run.model(ctx), run.space(), run.library(ctx)
    for number in ctx.track(tokens, len(tokens), "scoring", unit="number of tokens"):
        path = ctx.dir / f"scores_{number}.json"
        if not path.is_file():
            batches = plain_batches(images, index_N, config.batch, model)
            amp = run.config.evaluate.amp
            found = score_at(model, space, library, batches, number, amp)
            atomic_write_json(path, found.to_json())


def find(run: Run, ctx: StageContext) -> None:
    """Tokens alone, architecture alone and both, at one budget; frontiers; baselines."""
    config, model, space = run.config, run.model(ctx), run.space()
    costs = [Costs(**entry) for entry in read_stage(ctx.input("costs"), "costs")["costs"]]
    problems = {
        at.tokens: problem_at(
            space, Scores.load(ctx.input("scores") / f"scores_{at.tokens}.json"), at, config.score
        )
        for at in costs
    }
    limit = absolute(str(config.budget.latency), problems)
    full = costs[-1].whole
    clock = run.clock(ctx)

    def measure(tokens: int, choice: np.ndarray) -> float:
        child = hollow(model, space, choice.tolist())
        _, found = time_children(model, {"child": (child, tokens)}, clock, config.evaluate)
        # On the footing of the prices, whatever the machine has drifted to since.
        return full / found["child"].speedup

    check = measure if config.search.tighten else None
    found, refused = search.answers(problems, limit, config.search, check)
    others = search.baseline_choices(
        problems[found[JOINT].tokens], limit, config.baselines, ctx.seed
    )
    losses = _measured_losses(run, ctx, {**found, **others})
    atomic_write_json(
        ctx.dir / "answers.json",
        {
            "limit": limit,
            "answers": {kind: asdict(answer) for kind, answer in found.items()},
            "refused": refused,
            "baselines": {name: answer and asdict(answer) for name, answer in others.items()},
            "losses": losses,
        },
    )
    atomic_write_json(ctx.dir / "frontier.json", search.frontiers(problems, config.search))
    atomic_write_json(ctx.dir / "problems.json", {str(n): p.to_json() for n, p in problems.items()})
    metric = config.score.metric
    ctx.summary({"latency.limit": limit})
    for kind in ANSWERS:
        answer = found.get(kind)
        ctx.summary(
            {
                f"{kind}.num_tokens": answer and answer.tokens,
                f"{kind}.loss.predicted": answer and answer.loss,
                f"{kind}.loss.measured": answer and losses[kind][metric],
                f"{kind}.latency.predicted": answer and answer.latency,
            }
        )
    for name, answer in others.items():
        ctx.summary(
            {
                f"baseline.{name}.loss.predicted": answer and answer.loss,
                f"baseline.{name}.loss.measured": answer and losses[name][metric],
            }
        )


def make_children(run: Run, ctx: StageContext) -> None:
    """Realises every answer, measures it, distils it as a whole, and measures it again."""
    config, parent = run.config, run.parent(ctx)
    train = run.images(ctx, "train")
    valid = run.images(ctx, "valid")
    found = read_stage(ctx.input("search"), "answers")["answers"]
    full = parent.config.full_grid
    parent_accuracy = accuracy(parent.model, valid, full, config.evaluate)
    ctx.summary({"parent.accuracy": parent_accuracy})
    rows: dict[str, Any] = {"parent": {"accuracy": parent_accuracy}}
    for kind, answer in found.items():
        home, tokens = ctx.dir / kind, answer["tokens"]
        about = home / "about.json"
        if not about.is_file():
            child = realise(parent, run.library(ctx), run.space(), answer["choice"], tokens)
            before = accuracy(child.model, valid, tokens, config.evaluate)

            def log(kind: str = kind, **record: Any) -> None:
                ctx.log(answer=kind, **record)
                say(f"[children] {kind}: {record_line(record)}")

            home.mkdir(exist_ok=True)
            steps = distil_whole(
                child,
                parent,
                train,
                tokens,
                config.gkd,
                config.augment,
                home,
                amp=config.evaluate.amp,
                compiled=config.evaluate.compile,
                seed=ctx.seed,
                log=log,
            )
            save_trained(home, child.config, child.classes, {"model": child.model})
            model: Any = child.model
            atomic_write_json(
                about,
                {
                    "num_tokens": tokens,
                    "blocks": child.config.blocks,
                    "accuracy": accuracy(model, valid, tokens, config.evaluate),
                    "accuracy.before": before,
                    "steps": steps,
                    "gmacs": model.gmacs(tokens),
                    "params": sum(weight.numel() for weight in model.parameters()),
                },
            )
        rows[kind] = json.loads(about.read_text(encoding="utf-8"))
        told = ("accuracy", "accuracy.before", "gmacs", "params")
        ctx.summary({f"{kind}.{name}": rows[kind][name] for name in told})
    atomic_write_json(ctx.dir / "children.json", rows)


def verify(run: Run, ctx: StageContext) -> None:
    """Times the children that were written, in turns with the parent."""
    found = read_stage(ctx.input("search"), "answers")["answers"]
    children: dict[str, Any] = {}
    for kind, answer in found.items():
        child: Any = load_trained(ctx.input("children") / kind, "model").model.to(ctx.device)
        children[kind] = child, answer["tokens"]
    parent, measured = time_children(run.model(ctx), children, run.clock(ctx), run.config.evaluate)
    rows, priced = {}, read_stage(ctx.input("costs"), "costs")["costs"][-1]["whole"]
    for kind, answer in found.items():
        # In shares of the parent's latency: the machine drifts between pricing and this.
        promised, at = answer["latency"] / priced, measured[kind]
        rows[kind] = {**asdict(at), "promised": promised, "error": promised * at.speedup - 1}
        ctx.summary(
            {
                f"{kind}.latency.measured": at.latency,
                f"{kind}.latency.error": rows[kind]["error"],
                f"{kind}.speedup.predicted": 1 / promised,
                f"{kind}.speedup": at.speedup,
            }
        )
    atomic_write_json(ctx.dir / "verify.json", {"parent": parent, "children": rows})
    ctx.summary({"parent.latency.measured": parent})


def _fitting(
    images: ImageSet, batches: list[tuple[Tensor, int]], batch: int, model: Any
) -> Iterator[tuple[Tensor, int]]:
    for index_B, tokens in batches:
        for image_BCHW, _ in plain_batches(images, index_B, batch, model):
            yield image_BCHW, tokens


def _measured_losses(
    run: Run, ctx: StageContext, answers: dict[str, search.Answer | None]
) -> dict[str, dict[str, float]]:
    """The metrics of whole children before anything else is trained: how additive scores are."""
    images, model, config = run.images(ctx, "train"), run.model(ctx), run.config
    index_N, found = run.parts(images).score, {}
    for name, answer in answers.items():
        if answer is None:
            continue
        parts = run.parent(ctx), run.library(ctx), run.space(), answer.choice, answer.tokens
        child: Any = realise(*parts).model
        batches = plain_batches(images, index_N, config.score.batch, model)
        found[name] = measured_loss(model, child, batches, answer.tokens, config.evaluate.amp)
    return found
