"""A Puzzle run as stages of files.

costs --------------------------+
calibration -> library -> scores +-> search -> child, baselines -> verify -> report
           +-> contexts ---------------------> child, baselines
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive.core import UserError, Workload
from adaptive.core.cost import Origin
from adaptive.core.run import Stage, StageContext, atomic_write_json, resolve_device, say
from adaptive.llm_puzzle import deploy, judge, plan, report
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.checkpoint import save_child
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.contexts import LongRows, long_rows
from adaptive.llm_puzzle.data import Rows, read_rows, sample_rows
from adaptive.llm_puzzle.distill import build_library
from adaptive.llm_puzzle.evaluate import check_installed, evaluate
from adaptive.llm_puzzle.fingerprint import fingerprint, source_fingerprint
from adaptive.llm_puzzle.gkd import Checkpoint, distill_globally
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.parent import (
    Parent,
    load_parent,
    parent_config,
    parent_directory,
    weight_files,
)
from adaptive.llm_puzzle.realise import realise
from adaptive.llm_puzzle.score import inversions, score_library
from adaptive.llm_puzzle.space import LayerSpace, search_space


def stages(config: PuzzleConfig) -> list[Stage]:
    """The stages of a Puzzle run, in order."""
    if config.plan_only:
        return plan.stages(config)
    run = Puzzle(config)
    _ = run.space  # refused before anything is computed
    if config.evaluate.lm_eval:
        check_installed()
    identity = [run.parent_fingerprint, config.dtype]
    text = [config.data, *map(source_fingerprint, run.text_sources)]
    budget = [config.budget, config.search, config.workload, config.cost, config.verify.tighten]
    children = ["child", *(f"baseline_{name}" for name in config.baselines)]
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
            "contexts", run.read_contexts, ("calibration",), [identity, text, *run.lengths.items()]
        ),
        Stage("library", run.build, ("calibration",), [identity, config.space, config.distill]),
        Stage("scores", run.score, ("calibration", "library"), [config.score]),
        Stage(
            "search",
            partial(deploy.search, run),
            ("scores", "costs"),
            [identity, config.score.metric, budget, config.baselines],
        ),
        *(
            Stage(
                name,
                run.make_child,
                (
                    *("calibration", "contexts", "library", "search"),
                    *(["child"] if name != "child" else []),
                ),
                [identity, config.gkd, config.evaluate],
            )
            for name in children
        ),
        Stage("verify", partial(deploy.verify, run), ("search", "child"), [config.verify]),
        Stage(
            "report",
            run.report,
            ("contexts", "library", "scores", "search", "verify", *children),
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

    @property
    def lengths(self) -> dict[str, tuple[int, int]]:
        """Rows to read beside those of calibration: name to their length and tokens."""
        config, most = self.config, self.parent_config.max_position_embeddings
        wanted = {}
        if config.evaluate.positions:
            length = min(config.evaluate.positions * config.data.length, most)
            wanted["positions"] = (length, config.evaluate.position_tokens)
        if config.gkd.long.tokens:
            length = config.gkd.long.length or 4 * config.data.length
            wanted["long"] = (min(length, most), config.gkd.long.tokens)
        return wanted

    def parent(self, device: str) -> Parent:
        return _load(self.config.parent, self.parent_fingerprint, device, self.config.dtype)

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
        budget = self.config.evaluate.batch_tokens
        quality = evaluate(parent.model, held.to(parent.model.device), budget)
        ctx.summary(
            {
                "parent.loss": quality.loss,
                "parent.ppl": quality.ppl,
                "parent.params": sum(p.numel() for p in parent.model.parameters()),
                "data.train_tokens": train.tokens,
                "data.validation_tokens": held.tokens,
            }
        )

    def _read(self, ctx: StageContext, parent: Parent, source: str, tokens: int, key: str) -> Rows:
        data = self.config.data
        if source != "self":
            return read_rows(source, data, tokens, parent.tokenizer, f"data.{key}")
        return self._sample(ctx, parent, data.length, tokens)

    def _sample(self, ctx: StageContext, parent: Parent, length: int, tokens: int) -> Rows:
        """Rows that the parent writes itself."""
        data = self.config.data
        length = min(length, parent.model.config.max_position_embeddings)
        size = min(data.batch_size, -(-tokens // length))
        batches = sample_rows(parent.model, length, tokens, size, data.temperature)
        total = -(-tokens // (length * size))
        shown = ctx.track(batches, total, "sampling from the parent", unit="batch")
        return Rows.concatenate(list(shown))

    def read_contexts(self, ctx: StageContext) -> None:
        """Writes rows longer than calibration's, for evaluation by position and the long phase."""
        about: dict[str, dict[str, Any]] = {}
        parent = self.parent(ctx.device) if self.lengths else None
        for name, (length, tokens) in self.lengths.items():
            assert parent is not None
            found = self._read_long(ctx, parent, name, length, tokens)
            found.rows.save(ctx.dir / f"{name}.safetensors")
            about[name] = {"length": length, "tokens": found.rows.tokens, "joined": found.joined}
        atomic_write_json(ctx.dir / "contexts.json", about)
        ctx.summary(
            {f"data.{name}.{key}": value for name in about for key, value in about[name].items()}
        )

    def _read_long(
        self, ctx: StageContext, parent: Parent, name: str, length: int, tokens: int
    ) -> LongRows:
        data = self.config.data
        judging = name == "positions"
        source, key, part = data.calibration, "data.calibration", slice(None)
        if judging and data.validation is not None:
            source, key = data.validation, "data.validation"
        elif data.validation is None:  # the first rows of calibration were held out
            held = len(_rows(ctx, "validation"))
            part = slice(held) if judging else slice(held, None)
        if source == "self":
            return LongRows(self._sample(ctx, parent, length, tokens), False)
        assert parent.tokenizer is not None  # calibration has read text with it
        return long_rows(source, data, parent.tokenizer, key, length, tokens, part)

    def build(self, ctx: StageContext) -> None:
        """Makes the block library."""
        parent, distill = self.parent(ctx.device), self.config.distill
        space, library = self.space, Library(ctx.dir)
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
            self.space,
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
        ctx.summary(
            judge.child_summary(result) if is_child else judge.baseline_summary(name, result)
        )

    def _distil(
        self, ctx: StageContext, parent: Parent, blocks: list[BlockOption]
    ) -> dict[str, Any]:
        config, device = self.config, parent.model.device
        child = realise(parent.model, blocks, Library(ctx.input("library")))
        rows, budget = _rows(ctx, "validation").to(device), config.evaluate.batch_tokens
        before = evaluate(child, rows, budget, parent.model)
        checkpoint = Checkpoint(ctx.dir / "gkd.checkpoint", config.gkd.checkpoint_seconds)
        long = config.gkd.long.tokens > 0
        tokens = distill_globally(
            child,
            parent.model,
            _rows(ctx, "train").to(device),
            config.gkd,
            # All architectures see the same rows in the same order.
            config.seed,
            track=lambda steps, total: ctx.track(steps, total, "distilling", unit="step"),
            log=ctx.log,
            long_rows=_rows(ctx, "long", "contexts").to(device) if long else None,
            checkpoint=checkpoint,
        )
        after = evaluate(child, rows, budget, parent.model)
        if not math.isfinite(after.loss):
            raise UserError(
                f"[{ctx.name}] global distillation diverged: lower gkd.learning_rate="
                f"{config.gkd.learning_rate}, or set dtype=float32"
            )
        worse = config.gkd.keep_better and after.kl > before.kl
        if worse:
            say(
                f"[{ctx.name}] global distillation made it worse (KL {before.kl:.4f} to "
                f"{after.kl:.4f}): the child from before is kept, lower gkd.learning_rate"
            )
            child = realise(parent.model, blocks, Library(ctx.input("library")))
        save_child(child, parent.tokenizer, ctx.dir / "model")
        checkpoint.discard()
        return {
            **judge.compared(before, before if worse else after),
            "params": sum(p.numel() for p in child.parameters()),
            "gkd.tokens": tokens,
            "gkd.kept": "start" if worse else "end",
            **judge.beyond(ctx, config.evaluate, child, parent),
        }

    def report(self, ctx: StageContext) -> None:
        """Writes the page."""
        report.write(ctx, self.config)


@lru_cache(maxsize=1)
def _load(name: str, mark: str, device: str, dtype: str) -> Parent:
    """The parent, kept for the stages to come; ``mark`` tells changed files from cached ones."""
    return load_parent(name, torch.device(device), getattr(torch, dtype))


def _rows(ctx: StageContext, name: str, stage: str = "calibration") -> Rows:
    return Rows.load(ctx.input(stage) / f"{name}.safetensors")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
