"""A small distillation in a process of its own, to be killed: see ``test_resume.py``.

Usage: python kill_training.py PARENT_DIRECTORY CHECKPOINT_DIRECTORY RESULT [STEP]
The process kills itself with SIGKILL after having begun step STEP.
"""

from __future__ import annotations

import copy
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.gkd import Checkpoint, distill_globally
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.settings import GKDConfig, LongConfig


def main() -> None:
    torch.set_num_threads(1)
    parent_dir, directory, result, *kill = sys.argv[1:]
    parent = load_parent(parent_dir, torch.device("cpu"), torch.float32).model
    child = copy.deepcopy(parent)
    # Dropout draws random numbers: a resumed training has to draw the same ones.
    child.config.attention_dropout = 0.1
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in child.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    short, long = (
        Rows.pack(torch.randint(3, 60, (9,), generator=generator).tolist()[: 4 + n] for n in sizes)
        for sizes in (range(6), [5, 5, 5])
    )
    config = GKDConfig(
        tokens=60, batch=2, long=LongConfig(tokens=40, length=9), checkpoint_seconds=0
    )

    def log(step: int, **_: float) -> None:
        print(step, flush=True)
        if kill and step == int(kill[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.manual_seed(0)
    checkpoint = Checkpoint(Path(directory), config.checkpoint_seconds)
    tokens = distill_globally(
        child, parent, short, config, 5, log=log, long_rows=long, checkpoint=checkpoint
    )
    checkpoint.discard()
    weights = {name: weight.contiguous() for name, weight in child.named_parameters()}
    save_file(weights, result, metadata={"tokens": str(tokens)})


if __name__ == "__main__":
    main()
