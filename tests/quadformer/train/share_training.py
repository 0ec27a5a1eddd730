"""A small training by the processes that torchrun starts: see ``test_ranks.py``.

Usage: torchrun ... share_training.py WORK_DIRECTORY RESULT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from safetensors.torch import save_file  # noqa: E402
from tiny_training import make_trainer, weights_of  # noqa: E402

from adaptive.core.run import Ranks  # noqa: E402
from adaptive.quadformer.evaluate import accuracy  # noqa: E402
from adaptive.quadformer.settings import EvaluateConfig  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    work, result = sys.argv[1:]
    ranks = Ranks.here("cpu")
    trainer = make_trainer(Path(work), ranks=ranks, accumulate=2, epochs=2)
    trainer.run()
    config = EvaluateConfig(batch=5)
    share = accuracy(trainer.model, trainer.images, 16, config, ranks=ranks)
    alone = accuracy(trainer.model, trainer.images, 16, config)
    found = {"weights": weights_of(trainer), "accuracy": torch.tensor([share, alone])}
    save_file(found, f"{result}.{ranks.rank}")
    ranks.leave()


if __name__ == "__main__":
    main()
