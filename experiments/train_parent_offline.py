"""Train a parent on a machine that has only torch, transformers, tokenizers and safetensors.

The recipes ``train_parent`` and ``train_parent_small`` do the same through the run system; this
script calls the same functions on tokens prepared elsewhere (a run's ``artifacts/tokens``), for a
rented GPU without Hydra, OR-tools or the raw text:

    python experiments/train_parent_offline.py --tokens DIR --work DIR --out DIR --seconds 480

``--name`` and settings such as ``shape.layers=12``, those of a recipe, make another parent.

``--try "schedule.steps=3000 schedule.dropout=0.1"``, repeated, trains with several settings and
keeps the parent with the lowest mean validation loss. ``--out`` receives it, with ``metrics.json``;
``--work`` holds resumable checkpoints, so that the same command again continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

LEAST = 60.0  # seconds that a further try must have left


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--name", default="llama-tiny", help="in the record of the result")
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--try", dest="tries", action="append", default=[])
    known, common = parser.parse_known_args()
    began = time.monotonic()
    results: list[dict[str, Any]] = []
    for number, settings in enumerate(known.tries or [""]):
        left = known.seconds - (time.monotonic() - began)
        if known.seconds and results and left < LEAST:
            print(f"no time left for {settings!r}", flush=True)
            break
        work = known.work / f"try{number}"
        result = attempt([*common, *settings.split()], known, work, left, began)
        results.append(result)
        kept = min(results, key=mean_loss)
        if kept is result:
            shutil.copytree(work / "export", known.out, dirs_exist_ok=True)
        tries = [{key: r[key] for key in ("schedule", "valid")} for r in results]
        text = json.dumps({**kept, "tries": tries}, indent=1)
        (known.out / "metrics.json").write_text(text + "\n")
    print("tokens seen by the one kept:", min(results, key=mean_loss)["tokens_seen"])


def attempt(
    settings: list[str], known: argparse.Namespace, work: Path, left: float, began: float
) -> dict[str, Any]:
    """Trains once; returns the record of the result, whose checkpoint is in ``work/export``."""
    import torch
    import transformers

    from adaptive.llm_puzzle.pretrain.export import device_name, export_parent, now
    from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule
    from adaptive.llm_puzzle.pretrain.train import Trainer

    shape, schedule = ParentShape(), Schedule()
    for setting in settings:  # shape.layers=2 schedule.batch=8
        name, _, value = setting.partition("=")
        group, _, field = name.partition(".")
        target = {"shape": shape, "schedule": schedule}[group]
        setattr(target, field, type(getattr(target, field))(value))
    if known.seconds:  # the export (rounding, samples) is part of the budget
        schedule.seconds = max(1.0, left - 15)
    shape.validate()
    schedule.validate()
    work.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, Any]] = []

    def log(**record: Any) -> None:
        words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items())
        print(f"[{time.monotonic() - began:6.1f} s]", "  ".join(words), flush=True)
        history.append(record)

    print(f"[{time.monotonic() - began:6.1f} s]", *settings, flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(known.tokens, work, shape, schedule, device=device, seed=known.seed, log=log)
    trainer.run()
    trained = time.monotonic()
    found = export_parent(trainer.model, trainer.validation, known.tokens, work / "export")
    print(f"[{time.monotonic() - began:6.1f} s]", json.dumps(found["valid"]), flush=True)
    return found | {
        "name": known.name,
        "tokens_seen": trainer.tokens_seen,
        "steps": trainer.step,
        "seconds": {"training": trainer.seconds, "export": time.monotonic() - trained},
        "device": device_name(device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "date": now(),
        "commit": known.commit,
        "seed": known.seed,
        "shape": dataclasses.asdict(shape),
        "schedule": dataclasses.asdict(schedule),
        "corpus": json.loads((known.tokens / "tokens.json").read_text()),
        "history": history,
    }


def mean_loss(result: dict[str, Any]) -> float:
    """Mean validation loss over the sets, in nats a token."""
    return sum(values["loss"] for values in result["valid"].values()) / len(result["valid"])


if __name__ == "__main__":
    main()
