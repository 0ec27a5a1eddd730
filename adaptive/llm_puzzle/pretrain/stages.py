"""The task ``train_parent``: text -> tokens -> trained weights -> Hugging Face checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.run import Stage, StageContext, duration, say
from adaptive.llm_puzzle.pretrain.config import TrainParentConfig
from adaptive.llm_puzzle.pretrain.settings import Source


def stages(config: TrainParentConfig) -> list[Stage]:
    """The stages ``tokens``, ``train`` and ``export``; the last one's artefacts are the parent."""
    train, valid = _resolved(config, "train"), _resolved(config, "valid")
    shape, schedule = config.shape, config.schedule

    def tokens_stage(context: StageContext) -> None:
        from adaptive.llm_puzzle.pretrain.tokens import prepare_tokens

        counts = prepare_tokens(train, valid, shape, context.dir)
        context.summary({f"tokens.{stream}": count for stream, count in counts.items()})

    def train_stage(context: StageContext) -> None:
        from adaptive.llm_puzzle.pretrain.train import Trainer

        def log(step: int, **record: Any) -> None:
            context.log(step=step, **record)
            say(f"[train] {progress(step, record)}")

        trainer = Trainer(
            context.input("tokens"),
            context.dir,
            shape,
            schedule,
            device=context.device,
            seed=config.seed,
            log=log,
        )
        trainer.run()
        context.summary(
            {
                "train.tokens": trainer.tokens_seen,
                "train.steps": trainer.step,
                "train.seconds": trainer.seconds,
            }
        )

    def export_stage(context: StageContext) -> None:
        from torch import nn

        from adaptive.llm_puzzle.pretrain.checkpoint import load_checkpoint
        from adaptive.llm_puzzle.pretrain.export import export_parent
        from adaptive.llm_puzzle.pretrain.model import build_parent
        from adaptive.llm_puzzle.pretrain.report import write_report
        from adaptive.llm_puzzle.pretrain.tokens import TokenData

        tokens = context.input("tokens")
        model = build_parent(shape, config.seed)
        load_checkpoint(context.input("train") / "checkpoint.safetensors", model)
        nn.Module.to(model, context.device)
        validation = TokenData(tokens, context.device).validation(shape.context)
        found = export_parent(
            model,
            validation,
            tokens,
            context.dir,
            show=lambda batches: context.track(batches, desc="validation", unit="batch"),
        )
        context.summary(
            {
                "parent.params": found["parameters"],
                "parent.bytes": found["bytes"],
                "parent.dtype": found["dtype"],
                **{
                    f"valid.{name}.{key}": values[key]
                    for name, values in found["valid"].items()
                    for key in ("loss", "bits_per_byte")
                },
            }
        )
        history = [r for r in context.run.metrics.records() if r["stage"] == "train"]
        write_report(context.dir / "report.html", config, found, history, context.run.path)

    read = [
        [split, name, source.documents, source.repeat, _fingerprint(Path(source.path))]
        for split, sources in (("train", train), ("valid", valid))
        for name, source in sources.items()
    ]
    return [
        Stage("tokens", tokens_stage, depends_on=[read, shape.vocab, shape.context]),
        Stage("train", train_stage, needs=("tokens",), depends_on=[shape, schedule]),
        Stage("export", export_stage, needs=("tokens", "train"), depends_on=shape),
    ]


def progress(step: int, record: dict[str, Any]) -> str:
    """A training record as a line of text."""
    record = dict(record)
    parts = [f"step {step}"]
    if (speed := record.pop("tokens_per_second", None)) is not None:
        parts.append(f"{speed / 1e3:,.1f} k tokens/s, {duration(record.pop('eta'))} left")
    parts += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()]
    return ", ".join(parts)


def _resolved(config: TrainParentConfig, split: str) -> dict[str, Source]:
    """The sources of a split with absolute paths.

    Raises:
        UserError: a path leads nowhere.
    """
    root = Path(config.data.root).expanduser()
    resolved = {}
    for name, source in getattr(config.data, split).items():
        path = root / Path(source.path).expanduser()
        if not path.exists():
            raise UserError(
                f"data.{split}.{name}.path: there is no {path}; set it, or data.root, or the "
                "environment variable ADAPTIVE_DATA that the recipes start from"
            )
        resolved[name] = dataclasses.replace(source, path=str(path))
    return resolved


def _fingerprint(path: Path) -> str:
    """SHA-256 over the contents of a file or of the files below a directory."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    return hashlib.sha256(b"".join(hashes)).hexdigest()
