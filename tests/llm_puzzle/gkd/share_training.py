"""A small distillation by the processes that torchrun starts: see ``test_shard.py``.

Usage: torchrun ... share_training.py PARENT_DIRECTORY RESULT DTYPE [CHECKPOINT STEP]
All processes raise an error after having begun step STEP.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from adaptive.core.run.ranks import Ranks, no_teardown
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.gkd import Checkpoint, distill_globally
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.realise import realise_child
from adaptive.llm_puzzle.settings import GKDConfig


def main() -> None:
    torch.set_num_threads(1)
    parent_dir, result, dtype, *rest = sys.argv[1:]
    ranks = Ranks.here("cpu")
    parent = load_parent(parent_dir, torch.device("cpu"), getattr(torch, dtype))
    blocks = list(parent.blocks)
    empty = {"attention": {"kind": "no_op"}, "ffn": {"kind": "no_op"}}
    blocks[1] = BlockOption.from_config(empty)
    child = realise_child(parent.model, blocks, Library(Path()))
    generator = torch.Generator().manual_seed(3)
    rows = Rows.pack(
        torch.randint(3, 60, (4 + n % 7,), generator=generator).tolist() for n in range(15)
    )
    # Batches of five documents and a micro-batch of two rows: one process has less to do.
    config = GKDConfig(
        tokens=200, batch=5, micro_batch=2, gradient_checkpointing=True, learning_rate=3e-4
    )
    checkpoint = Checkpoint(Path(rest[0]), 0) if rest else None
    lines: list[str] = []

    def log(step: int, **values: float) -> None:
        lines.append(f"{step} {values['kl']:.6f} {values['lm']:.6f}")

    steps = 0

    def stop(batches, total):
        nonlocal steps
        for batch in batches:
            yield batch
            steps += 1
            if len(rest) > 1 and steps == int(rest[1]):
                raise SystemExit(3)

    distill_globally(
        child, parent.model, rows, config, 5, stop, log, checkpoint=checkpoint, ranks=ranks
    )
    state = {name: weight.contiguous() for name, weight in child.named_parameters()}
    save_file(state, f"{result}.{ranks.rank}")
    if ranks.main:
        Path(f"{result}.log").write_text("\n".join(lines))
    ranks.leave()


if __name__ == "__main__":
    with no_teardown():
        main()
