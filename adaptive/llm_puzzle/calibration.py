"""The stages that read text: rows to calibrate, train and validate on, and longer ones."""

from __future__ import annotations

from typing import Any

import torch

from adaptive.core import UserError
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.contexts import LongRows, long_rows
from adaptive.llm_puzzle.data import Rows, random_rows, read_rows, sample_rows
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.parent import (
    Parent,
)
from adaptive.llm_puzzle.puzzle import Puzzle, rows_of
from adaptive.llm_puzzle.shapes import stack


def calibrate(run: Puzzle, ctx: StageContext) -> None:
    """Writes calibration and validation rows, and how good the parent is on the latter."""
    data, parent = run.config.data, run.parent(ctx.device)
    wanted = {"train": data.tokens, "validation": data.validation_tokens}
    if data.validation is None:
        rows = _read(run, ctx, parent, data.calibration, sum(wanted.values()), "calibration")
        held = rows.first(data.validation_tokens)
        if len(held) == len(rows):
            raise UserError(
                f"data.calibration={data.calibration} holds {rows.tokens} tokens, too few to "
                f"hold out data.validation_tokens={data.validation_tokens} of them"
            )
        train = rows.select(torch.arange(len(held), len(rows)))
    else:
        train = _read(run, ctx, parent, data.calibration, data.tokens, "calibration")
        held = _read(run, ctx, parent, data.validation, data.validation_tokens, "validation")
    train.save(ctx.dir / "train.safetensors")
    held.save(ctx.dir / "validation.safetensors")
    budget = run.config.evaluate.batch_tokens
    quality = evaluate(parent.model, held.to(parent.model.device), budget)
    ctx.summary(
        {
            "parent.loss": quality.loss,
            "parent.ppl": quality.ppl,
            "parent.params": stack(parent.model.config).params(),
            "data.train_tokens": train.tokens,
            "data.validation_tokens": held.tokens,
        }
    )


def read_contexts(run: Puzzle, ctx: StageContext) -> None:
    """Writes rows longer than calibration's, for evaluation by position and the long phase."""
    about: dict[str, dict[str, Any]] = {}
    parent = run.parent(ctx.device) if run.lengths else None
    for name, (length, tokens) in run.lengths.items():
        assert parent is not None
        found = _read_long(run, ctx, parent, name, length, tokens)
        found.rows.save(ctx.dir / f"{name}.safetensors")
        about[name] = {"length": length, "tokens": found.rows.tokens, "joined": found.joined}
    atomic_write_json(ctx.dir / "contexts.json", about)
    ctx.summary(
        {f"data.{name}.{key}": value for name in about for key, value in about[name].items()}
    )


def _read(
    run: Puzzle, ctx: StageContext, parent: Parent, source: str, tokens: int, key: str
) -> Rows:
    data = run.config.data
    length = min(data.length, parent.model.config.max_position_embeddings)
    if source == "random":
        return random_rows(parent.model.config.vocab_size, length, tokens)
    if source != "self":
        return read_rows(source, data, tokens, parent.tokenizer, f"data.{key}")
    return _sample(run, ctx, parent, data.length, tokens)


def _read_long(
    run: Puzzle, ctx: StageContext, parent: Parent, name: str, length: int, tokens: int
) -> LongRows:
    data = run.config.data
    judging = name == "positions"
    source, key, part = data.calibration, "data.calibration", slice(None)
    if judging and data.validation is not None:
        source, key = data.validation, "data.validation"
    elif data.validation is None:  # the first rows of calibration were held out
        held = len(rows_of(ctx, "validation"))
        part = slice(held) if judging else slice(held, None)
    if source == "random":
        return LongRows(random_rows(parent.model.config.vocab_size, length, tokens), False)
    if source == "self":
        return LongRows(_sample(run, ctx, parent, length, tokens), False)
    assert parent.tokenizer is not None  # calibration has read text with it
    return long_rows(source, data, parent.tokenizer, key, length, tokens, part)


def _sample(run: Puzzle, ctx: StageContext, parent: Parent, length: int, tokens: int) -> Rows:
    """Rows that the parent writes itself."""
    data = run.config.data
    length = min(length, parent.model.config.max_position_embeddings)
    size = min(data.batch, -(-tokens // length))
    batches = sample_rows(parent.model, length, tokens, size, data.temperature)
    total = -(-tokens // (length * size))
    shown = ctx.track(batches, total, "sampling from the parent", unit="batch")
    return Rows.concatenate(list(shown))
