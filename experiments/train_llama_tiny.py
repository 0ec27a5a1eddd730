"""Train ``llama-tiny`` on a machine that has only torch, transformers, tokenizers and safetensors.

The recipe ``train_parent`` does the same through the run system; this script calls the same
functions on tokens prepared elsewhere, for a rented GPU without Hydra, OR-tools or the raw text:

    python experiments/train_llama_tiny.py --tokens DIR --work DIR --out DIR --seconds 480

``--out`` receives the checkpoint (after every validation, so an early end still leaves one),
and ``metrics.json``; ``--work`` the resumable checkpoint. The same command again continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--seed", type=int, default=0)
    known, rest = parser.parse_known_args()
    began = time.monotonic()

    import torch
    import transformers

    from adaptive.llm_puzzle.pretrain.export import device_name, export_parent, now
    from adaptive.llm_puzzle.pretrain.model import save_parent
    from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule
    from adaptive.llm_puzzle.pretrain.train import Trainer

    transformers.utils.logging.disable_progress_bar()
    shape, schedule = ParentShape(), Schedule()
    for argument in rest:  # shape.layers=2 schedule.batch=8
        name, _, value = argument.partition("=")
        group, _, field = name.partition(".")
        target = {"shape": shape, "schedule": schedule}[group]
        setattr(target, field, type(getattr(target, field))(value))
    shape.validate()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # What importing took and what the export will take (rounding, samples) is part of the budget.
    schedule.seconds = max(0.0, known.seconds - (time.monotonic() - began) - 15)
    schedule.validate()
    known.work.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, float]] = []

    def log(**record: float) -> None:
        words = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items())
        print(f"[{time.monotonic() - began:6.1f} s]", "  ".join(words), flush=True)
        history.append(record)

    def on_validation(trainer: Trainer) -> None:
        save_parent(trainer.model, known.tokens, known.out, "float16")

    trainer = Trainer(
        known.tokens,
        known.work,
        shape,
        schedule,
        device=device,
        seed=known.seed,
        log=log,
        on_validation=on_validation,
    )
    trainer.run()
    trained = time.monotonic()
    result = export_parent(trainer.model, trainer.validation, known.tokens, known.out)
    result |= {
        "name": "llama-tiny",
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
    (known.out / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: result[k] for k in ("dtype", "bytes", "valid", "rounding", "samples")}))


if __name__ == "__main__":
    main()
