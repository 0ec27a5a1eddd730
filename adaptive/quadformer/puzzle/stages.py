"""The stages of a ``puzzle_vit`` run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.run import StageContext, atomic_write_json, say
from adaptive.core.training import record_line
from adaptive.quadformer.data import ImageSet
from adaptive.quadformer.evaluate import accuracy
from adaptive.quadformer.evaluate.stages import read_stage
from adaptive.quadformer.latency import tokens_for
from adaptive.quadformer.models import load_trained, save_trained
from adaptive.quadformer.puzzle import search
from adaptive.quadformer.puzzle.children import distil_whole, hollow, realise_child
from adaptive.quadformer.puzzle.config import ANSWERS, JOINT
from adaptive.quadformer.puzzle.costs import Costs, measure_costs
from adaptive.quadformer.puzzle.images import plain_batches
from adaptive.quadformer.puzzle.parent import Run
from adaptive.quadformer.puzzle.problems import absolute, problem_at
from adaptive.quadformer.puzzle.score import Scores, measured_loss, score_at
from adaptive.quadformer.puzzle.verify import time_children
from adaptive.quadformer.train.trainer import CHECKPOINT

ABOUT = "about.json"  # of a child
SCORES = "scores_{}.json"  # at a number of tokens
NEARBY = 0.93  # of the tokens that a latency buys: searched at, too, as clocks are not exact


def decode(run: Run, ctx: StageContext) -> None:
    """Decodes both splits into the cache."""
    counts = {split: len(run.images(ctx, split, "cpu")) for split in ("train", "valid")}
    run.parts(run.images(ctx, "train", "cpu"))  # refuses what leaves nothing to learn from
    classes = run.load_parent().classes
    atomic_write_json(ctx.dir / "images.json", {"classes": classes, **counts})
    ctx.summary({f"images.{split}": count for split, count in counts.items()})


def choose_grid(run: Run, ctx: StageContext) -> None:
    """The numbers of tokens that the library is made for, whatever the budget."""
    model, config = run.model(ctx), run.config
    feasible = list(model.geometry.feasible())
    wanted = set(config.num_tokens)
    for tokens in wanted:
        model.check_tokens(tokens)
    if not wanted:
        steps = np.linspace(0, len(feasible) - 1, min(config.points, len(feasible)))
        wanted = {feasible[round(step)] for step in steps}
    atomic_write_json(ctx.dir / "grid.json", {"tokens": sorted(wanted | {feasible[-1]})})


def add_bought(run: Run, ctx: StageContext) -> None:
    """Further numbers of tokens to search at: what the budget buys the parent itself, and near."""
    model, config = run.model(ctx), run.config
    wanted: set[int] = set()
    try:
        bought = tokens_for(
            model,
            str(config.budget.latency),
            batch=config.evaluate.speed_batch,
            config=config.evaluate,
        ).tokens
        wanted = {bought, model.geometry.nearest(NEARBY * bought)}
    except UserError as error:
        say(f"[bought] no number of tokens meets the budget alone: {error}")
    more = sorted(wanted - set(run.tokens(ctx)))
    atomic_write_json(ctx.dir / "bought.json", {"tokens": more})


def price(run: Run, ctx: StageContext) -> None:
    """Times every option at every number of tokens."""
    found = measure_costs(
        run.model(ctx),
        run.space(),
        sorted({*run.tokens(ctx), *run.tokens(ctx, "bought")}),
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


def score(run: Run, chosen: str, ctx: StageContext) -> None:
    """Scores every option at every number of tokens that a stage chose, one file each."""
    images, config, tokens = run.images(ctx, "train"), run.config.score, run.tokens(ctx, chosen)
    index_N = run.parts(images).score
    model, space, library = run.model(ctx), run.space(), run.library(ctx)
    for number in ctx.track(tokens, len(tokens), "scoring", unit="number of tokens"):
        path = ctx.dir / SCORES.format(number)
        if not path.is_file():
            batches = plain_batches(images, index_N, config.batch, model)
            amp = run.config.evaluate.amp
            found = score_at(model, space, library, batches, number, amp)
            atomic_write_json(path, found.to_json())


def find(run: Run, ctx: StageContext) -> None:
    """Tokens alone, architecture alone and both, at one budget; frontiers; baselines."""
    config, model, space = run.config, run.model(ctx), run.space()
    costs = [Costs(**entry) for entry in read_stage(ctx.input("costs"), "costs")["costs"]]
    files = [*ctx.input("scores").iterdir(), *ctx.input("scores_bought").iterdir()]
    scores = {path.name: path for path in files}
    problems = {
        at.tokens: problem_at(
            space,
            Scores.load(scores[SCORES.format(at.tokens)]),
            at,
            config.score.metric,
            config.search.isotonic,
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
            "by_tokens": search.best_by_tokens(problems, limit, config.search),
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
    parent, valid = run.parent(ctx), run.images(ctx, "valid")
    train = run.images(ctx, "train")
    found = read_stage(ctx.input("search"), "answers")["answers"]
    own = accuracy(parent.model, valid, parent.config.full_grid, run.config.evaluate)
    ctx.summary({"parent.accuracy": own})
    rows: dict[str, Any] = {"parent": {"accuracy": own}}
    for kind in ANSWERS:
        if kind in found:
            home = ctx.dir / kind
            if not (home / ABOUT).is_file():  # written last
                home.mkdir(exist_ok=True)
                _make_child(run, ctx, kind, found[kind], train, valid)
            (home / CHECKPOINT).unlink(missing_ok=True)  # what was trained is saved
            rows[kind] = json.loads((home / ABOUT).read_text(encoding="utf-8"))
        told = ("accuracy", "accuracy.before", "gmacs", "params")
        ctx.summary({f"{kind}.{name}": rows.get(kind, {}).get(name) for name in told})
    atomic_write_json(ctx.dir / "children.json", rows)


def _make_child(
    run: Run,
    ctx: StageContext,
    kind: str,
    answer: dict[str, Any],
    train: ImageSet,
    valid: ImageSet,
) -> None:
    """One answer as a directory that ``load_trained`` takes, with what is known of it."""
    config, parent, tokens = run.config, run.parent(ctx), answer["tokens"]
    child = realise_child(parent, run.library(ctx), run.space(), answer["choice"], tokens)
    model: Any = child.model
    before = accuracy(model, valid, tokens, config.evaluate)

    def log(**record: Any) -> None:
        ctx.log(answer=kind, **record)
        say(f"[children] {kind}: {record_line(record)}")

    steps = distil_whole(
        child,
        parent,
        train,
        tokens,
        config.gkd,
        config.augment,
        ctx.dir / kind,
        amp=config.evaluate.amp,
        compiled=config.evaluate.compile,
        seed=ctx.seed,
        log=log,
    )
    save_trained(ctx.dir / kind, child.config, child.classes, {"model": model})
    about = {
        "num_tokens": tokens,
        "blocks": child.config.blocks,
        "accuracy": accuracy(model, valid, tokens, config.evaluate),
        "accuracy.before": before,
        "steps": steps,
        "gmacs": model.gmacs(tokens),
        "params": sum(weight.numel() for weight in model.parameters()),
    }
    atomic_write_json(ctx.dir / kind / ABOUT, about)


def verify(run: Run, ctx: StageContext) -> None:
    """Times the children that were written, in turns with the parent."""
    found = read_stage(ctx.input("search"), "answers")["answers"]
    children: dict[str, Any] = {}
    for kind, answer in found.items():
        child: Any = load_trained(ctx.input("children") / kind, "model").model.to(ctx.device)
        children[kind] = child, answer["tokens"]
    parent, measured = time_children(run.model(ctx), children, run.clock(ctx), run.config.evaluate)
    rows: dict[str, Any] = {}
    priced = read_stage(ctx.input("costs"), "costs")["costs"][-1]["whole"]
    for kind, answer in found.items():
        # In shares of the parent's latency: the machine drifts between pricing and this.
        promised, at = answer["latency"] / priced, measured[kind]
        rows[kind] = {**asdict(at), "promised": promised, "error": promised * at.speedup - 1}
    for kind in ANSWERS:
        row = rows.get(kind, {})
        ctx.summary(
            {
                f"{kind}.latency.measured": row.get("latency"),
                f"{kind}.latency.error": row.get("error"),
                f"{kind}.speedup.predicted": 1 / row["promised"] if row else None,
                f"{kind}.speedup": row.get("speedup"),
            }
        )
    atomic_write_json(ctx.dir / "verify.json", {"parent": parent, "children": rows})
    ctx.summary({"parent.latency.measured": parent})


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
        child: Any = realise_child(*parts).model
        batches = plain_batches(images, index_N, config.score.batch, model)
        found[name] = measured_loss(model, child, batches, answer.tokens, config.evaluate.amp)
    return found
