"""A small training in a process of its own, to be killed: see ``test_resume.py``.

Usage: python kill_training.py WORK_DIRECTORY RESULT [STEP]
The process kills itself with SIGKILL after having begun step STEP.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from tiny_training import make_trainer  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    work, result, *kill = sys.argv[1:]
    trainer = make_trainer(Path(work))
    update = trainer.update

    def killed(step, batch):
        print(step, flush=True)
        if kill and step == int(kill[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        return update(step, batch)

    trainer.update = killed  # type: ignore[method-assign]
    trainer.run()
    state = {
        f"{name}.{k}": v for name, m in trainer.models.items() for k, v in m.state_dict().items()
    }
    save_file(state, result)


if __name__ == "__main__":
    main()
