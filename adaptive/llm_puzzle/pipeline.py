"""A Puzzle run as stages of files.

costs --------------------------+
calibration -> library -> scores +-> search -> child, baselines -> verify, export -> report
                                              -> additivity

With ``search.rounds`` above 1, ``search_1 -> scores_1 -> search_2 -> ...`` stand between the scores
and the search (:mod:`adaptive.llm_puzzle.rounds`); with ``search.fuse_ffn`` the stage ``fusion``
between the search and the child (:mod:`adaptive.llm_puzzle.fusion_stage`).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive.core import UserError, Workload
from adaptive.core.cost import Origin
from adaptive.core.hardware import detect
from adaptive.core.run import Stage, StageContext, atomic_write_json, resolve_device
from adaptive.llm_puzzle import additivity, deploy, plan, report
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.config import PuzzleConfig, SearchConfig
from adaptive.llm_puzzle.data import Rows, random_rows, read_rows, sample_rows
from adaptive.llm_puzzle.distill import build_library, groups
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.export import EXPORTS
from adaptive.llm_puzzle.export.restrict import Restriction, readers_of, restriction
from adaptive.llm_puzzle.export.stage import export
from adaptive.llm_puzzle.fingerprint import fingerprint, source_fingerprint
from adaptive.llm_puzzle.full_forward import full_forward_seconds
from adaptive.llm_puzzle.fusion import STAGE, kept, library_of
from adaptive.llm_puzzle.fusion_stage import fusion
from adaptive.llm_puzzle.gkd import distill_globally
from adaptive.llm_puzzle.group_trainer import Speed
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.nvlabs import stages as released
from adaptive.llm_puzzle.parent import (
    Parent,
    load_parent,
    parent_config,
    parent_directory,
)
from adaptive.llm_puzzle.quantise import round_child
from adaptive.llm_puzzle.realise import realise
from adaptive.llm_puzzle.rehearsal import stages as rehearsal
from adaptive.llm_puzzle.rounds import rescore, scores_stage
from adaptive.llm_puzzle.score import ScoreSpeed, inversions, score_library
from adaptive.llm_puzzle.shapes import DTYPES, stack
from adaptive.llm_puzzle.space import LayerSpace, search_space
from adaptive.llm_puzzle.stream import StreamedLayers
from adaptive.llm_puzzle.walk import walk_bytes
from adaptive.llm_puzzle.weights import weight_files


def stages(config: PuzzleConfig) -> list[Stage]:
    """The stages of a Puzzle run, in order."""
    if config.library.source == "nvlabs":
        return released.stages(config, plan.planned_parent(config))
    if config.rehearse:
        return rehearsal.stages(config)
    if config.plan_only:
        return plan.stages(config)
    run = Puzzle(config)
    # What is refused is refused before anything is computed.
    _ = run.restriction
    for name in config.export:
        EXPORTS[name].prepare(run.directory)
    identity = [run.parent_fingerprint, config.dtype]
    text = [config.data, *map(source_fingerprint, run.text_sources)]
    budget = [config.budget, config.workload, config.cost, config.verify.tighten]
    last = _searched(replace(config.search, interactions=0))
    partial_way = {**last, "n_solutions": 1, "frontier": []}
    rounds, last_scores = config.search.rounds, scores_stage(config.search)
    # Diverse solutions are put together and measured where they are found.
    realised = ("calibration", "library") if config.search.n_solutions > 1 else ()
    children = ["child", *(f"baseline_{name}" for name in config.baselines)]
    fusing = [STAGE] if config.search.fuse_ffn else []
    keep_last = any(rules.last_ffn for _, rules in readers_of(config))
    return [
        # Costs come first: a budget that no child can meet is told in seconds, not after hours.
        Stage(
            "costs",
            partial(deploy.price, run),
            (),
            [identity, config.space, config.cost, config.workload, run.batch_sizes, run.origin],
        ),
        Stage("calibration", run.calibrate, (), [identity, text]),
        Stage(
            "library",
            run.build,
            ("calibration",),
            [identity, config.space, config.distill],
            parallel=True,
        ),
        Stage("scores", run.score, ("calibration", "library"), [config.score], parallel=True),
        *(
            stage
            for index in range(1, rounds)
            for stage in (
                Stage(
                    f"search_{index}",
                    partial(deploy.step, run, index=index),
                    ("costs", *_before(index)),
                    [identity, config.score.metric, budget, partial_way, run.restriction],
                ),
                Stage(
                    f"scores_{index}",
                    partial(rescore, run, index=index),
                    ("calibration", "library", f"search_{index}"),
                    [identity, config.score],
                ),
            )
        ),
        Stage(
            "search",
            partial(deploy.search, run),
            tuple(dict.fromkeys(["scores", "costs", *_before(rounds), *realised])),
            [identity, config.score.metric, budget, last, config.baselines, run.restriction],
        ),
        *(
            Stage(
                name,
                partial(fusion, run, keep_last=keep_last),
                ("calibration", "library", "costs", "search"),
                [identity, config.search.fuse_limit, keep_last, config.cost, config.verify.seconds],
            )
            for name in fusing
        ),
        *(
            Stage(
                name,
                run.make_child,
                (
                    *("calibration", "library", "search", *fusing),
                    *(["child"] if name != "child" else []),
                ),
                [identity, config.gkd],
            )
            for name in children
        ),
        Stage(
            "additivity",
            partial(additivity.check, run),
            ("calibration", "library", last_scores, "search"),
            [config.score, config.search.interactions, rounds],
        ),
        Stage("verify", partial(deploy.verify, run), ("search", *fusing, "child"), [config.verify]),
        Stage("export", partial(export, run), ("child",), [config.export, config.search.portable]),
        Stage(
            "report",
            run.report,
            (
                *("library", "scores", "search", "additivity", "verify", "export"),
                *fusing,
                *children,
                *(f"{kind}_{i}" for i in range(1, rounds) for kind in ("search", "scores")),
            ),
            [config],
        ),
    ]


def _searched(config: SearchConfig) -> dict[str, Any]:
    """What a search depends on: whether its child is fused afterwards is nothing to it."""
    return {key: value for key, value in vars(config).items() if not key.startswith("fuse_")}


def _before(index: int) -> list[str]:
    """What the search of a round goes by: scores, and the batch size of the round before."""
    return ["scores"] if index == 1 else [f"scores_{index - 1}", f"search_{index - 1}"]


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

    @cached_property
    def parent_config(self) -> PuzzleModelConfig:
        """The parent's shape, which is known without its weights."""
        return parent_config(self.directory)

    @cached_property
    def space(self) -> list[LayerSpace]:
        """The options of every layer.

        Raises:
            UserError: the search space does not fit the parent.
        """
        blocks = [BlockOption.from_config(entry) for entry in self.parent_config.blocks]
        return search_space(self.config.space, blocks)

    @cached_property
    def restriction(self) -> Restriction:
        """Which options of the space the child may have, for its engine and exports.

        Raises:
            UserError: they leave no child.
        """
        return restriction(self.config, self.parent_config, self.space)

    @property
    def origin(self) -> Origin:
        """Where latencies are measured: a run that goes on elsewhere measures them anew."""
        return Origin.here(resolve_device(self.config.device))

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
        config = self.config
        mark = self.parent_fingerprint
        return _load(config.parent, mark, device, config.dtype, config.parent_layers)

    def store(self, ctx: StageContext, parent: Parent, rows: Rows, layers: int = 1) -> Store:
        """Where the parent's activations on some rows wait while so many layers need them."""
        nbytes = walk_bytes(parent.model, rows, layers)
        return Store.choose(self.config.activations, nbytes, parent.model.device, ctx.dir)

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
                "parent.params": stack(parent.model.config).params(),
                "data.train_tokens": train.tokens,
                "data.validation_tokens": held.tokens,
            }
        )

    def _read(self, ctx: StageContext, parent: Parent, source: str, tokens: int, key: str) -> Rows:
        data = self.config.data
        length = min(data.length, parent.model.config.max_position_embeddings)
        if source == "random":
            return random_rows(parent.model.config.vocab_size, length, tokens)
        if source != "self":
            return read_rows(source, data, tokens, parent.tokenizer, f"data.{key}")
        batches = sample_rows(parent.model, length, tokens, data.batch_size, data.temperature)
        total = -(-tokens // (length * data.batch_size))
        shown = ctx.track(batches, total, "sampling from the parent", unit="batch")
        return Rows.concatenate(list(shown))

    def build(self, ctx: StageContext) -> None:
        """Makes the block library."""
        parent, distill = self.parent(ctx.device), self.config.distill
        space, library = self.space, Library(ctx.dir)
        rows = _rows(ctx, "train")
        largest = max(map(len, groups(parent.model, space, distill)))
        # Each process tells its own time.
        timing = ctx.dir / f"speed_{ctx.ranks.rank}.json"
        speed = Speed(**(_read(timing) if timing.is_file() else {}))

        def made(record: VariantRecord) -> None:
            atomic_write_json(timing, asdict(speed))
            ctx.log(
                None,
                layer=record.layer,
                option=record.option,
                side=record.side,
                start=record.loss_start,
                loss=record.loss,
                tokens_per_second=speed.tokens / max(speed.seconds, 1e-9),
            )

        build_library(
            parent.model,
            space,
            rows,
            distill,
            library,
            ctx.seed,
            self.config.data.batch_size,
            track=lambda jobs, total: ctx.track(jobs, total, "distilling variants", unit="variant"),
            log=made,
            store=self.store(ctx, parent, rows, largest),
            speed=speed,
            ranks=ctx.ranks,
        )
        total = Speed(
            int(ctx.ranks.sum(speed.tokens)),
            ctx.ranks.sum(speed.flops),
            ctx.ranks.sum(speed.seconds),
        )
        if not ctx.ranks.main:
            return
        records = list(library.records(space))
        atomic_write_json(ctx.dir / "library.json", [asdict(record) for record in records])
        ctx.summary({"library.variants": len(records), **self._speed(ctx, total)})
        if records:
            for name in ("loss_paper", "loss_ridge", "loss"):
                mean = float(np.mean([getattr(record, name) for record in records]))
                ctx.summary({f"library.{name}": mean})

    def _speed(self, ctx: StageContext, speed: Speed) -> dict[str, float | None]:
        """How fast variants were trained by all processes; how much of a device's peak it was.

        The sums are over processes: their seconds together are seconds of as many devices.
        """
        if not speed.seconds:
            return {"bld.tokens_per_second": None, "bld.mfu": None}
        peak = detect(ctx.device).peak_flops.get(DTYPES[self.config.dtype])
        rate = speed.flops / speed.seconds
        return {
            "bld.tokens_per_second": ctx.ranks.world * speed.tokens / speed.seconds,
            "bld.mfu": rate / peak if peak else None,
        }

    def score(self, ctx: StageContext) -> None:
        """Scores every option of every layer."""
        parent, config = self.parent(ctx.device), self.config.score
        rows = _rows(ctx, "validation").first(config.tokens).to(parent.model.device)
        store = self.store(ctx, parent, rows)
        timing = ctx.dir / f"speed_{ctx.ranks.rank}.json"
        speed = ScoreSpeed(**(_read(timing) if timing.is_file() else {}))
        library = Library(ctx.input("library"))
        scores = score_library(
            parent.model,
            self.space,
            library,
            rows,
            config,
            ctx.dir,
            track=lambda layers, total: ctx.track(layers, total, "scoring", unit="layer"),
            store=store,
            ranks=ctx.ranks,
            speed=speed,
        )
        atomic_write_json(timing, asdict(speed))
        total = ScoreSpeed(int(ctx.ranks.sum(speed.replacements)), ctx.ranks.sum(speed.seconds))
        if not ctx.ranks.main:
            return
        plain = None
        if not isinstance(parent.model.model.layers, StreamedLayers):
            plain = full_forward_seconds(
                parent.model, self.space, library, rows, config.batch_tokens
            )
        ctx.summary(
            {
                "scoring.replacements": total.replacements,
                "scoring.speedup_vs_full_forward": plain * total.replacements / total.seconds
                if plain and total.seconds
                else None,
            }
        )
        found = list(inversions(scores, config.metric))
        atomic_write_json(ctx.dir / "inversions.json", [asdict(inversion) for inversion in found])
        unusable = sum(int(np.isnan(s.values_AF[config.metric]).sum()) for s in scores)
        ctx.summary({"scores.inversions": len(found), "scores.not_finite": unusable})

    def make_child(self, ctx: StageContext) -> None:
        """Realises a choice, distils it globally and says how good it is before and after."""
        parent = self.parent(ctx.device)
        is_child = ctx.name == "child"
        name = "child" if is_child else ctx.name.removeprefix("baseline_")
        chosen = _read(ctx.input("search") / "architectures.json")
        if fused := kept(ctx):
            chosen["child"] = fused["blocks"]
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
        child = realise(parent.model, blocks, library_of(ctx))
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
        round_child(child)  # training has moved what has fewer bits off its grid
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

    def report(self, ctx: StageContext) -> None:
        """Writes the page."""
        report.write(ctx, self.config)


@lru_cache(maxsize=1)
def _load(name: str, mark: str, device: str, dtype: str, layers: int | None) -> Parent:
    """The parent, kept for the stages to come; ``mark`` tells changed files from cached ones."""
    return load_parent(name, torch.device(device), getattr(torch, dtype), layers)


def _rows(ctx: StageContext, name: str) -> Rows:
    return Rows.load(ctx.input("calibration") / f"{name}.safetensors")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
