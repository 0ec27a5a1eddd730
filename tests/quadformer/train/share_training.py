"""A small training by the processes that torchrun starts: see ``test_ranks.py``.

Usage: torchrun ... share_training.py WORK_DIRECTORY RESULT KIND [STEP]
With a step, the process of rank 1 is told to stop in it.
"""

from __future__ import annotations

import contextlib
import signal
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
    work, result, kind, *stop = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    ranks = Ranks.here("cpu")
    changes = {"accumulate": 2, "epochs": 2, "checkpoint_seconds": 1e9}
    trainer = make_trainer(Path(work), kind, ranks=ranks, **changes)
    update = trainer.update

    def told(step, batch):
        if stop and step == int(stop[0]) and ranks.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return update(step, batch)

    trainer.update = told  # type: ignore[method-assign]
    with contextlib.suppress(KeyboardInterrupt):
        trainer.run()
    config = EvaluateConfig(batch=5)
    share = accuracy(trainer.model, trainer.images, 16, config, ranks=ranks)
    alone = accuracy(trainer.model, trainer.images, 16, config)
    found = {
        "weights": weights_of(trainer),
        "accuracy": torch.tensor([share, alone]),
        "step": torch.tensor(trainer.step),
    }
    save_file(found, f"{result}.{ranks.rank}")
    ranks.leave()


if __name__ == "__main__":
    main()
