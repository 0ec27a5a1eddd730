"""The state of a distillation that was cut short: safetensors and JSON, whole or not there.

Every process writes a file of its own part; then the main one names the new files in
``state.json``, in one step. Killed at any moment, what that file names is complete.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from adaptive.core.run import atomic_path, atomic_write_json
from adaptive.core.run.atomic import remove
from adaptive.core.run.ranks import Ranks

STATE = "state.json"


@dataclass
class Checkpoint:
    """Where and how often a distillation is saved.

    Attributes:
        directory: of its own; made when first needed.
        seconds: between two savings; 0 saves after every step.
    """

    directory: Path
    seconds: float
    _saved: float = field(default_factory=time.monotonic, init=False)

    def due(self) -> bool:
        """True when it is time to save."""
        return time.monotonic() - self._saved >= self.seconds

    def save(self, tensors: dict[str, torch.Tensor], about: dict[str, Any], ranks: Ranks) -> None:
        """Replaces the saved state.

        Args:
            tensors: of this process, optimiser and random state among them.
            about: the same plain values in all processes; ``about["step"]`` must have grown.
            ranks: all must call this at the same step.
        """
        mark = f"{about['phase']}-{about['step']:08d}"
        with atomic_path(self._file(mark, ranks)) as path:
            save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, path)
        ranks.barrier()
        if ranks.main:
            atomic_write_json(self.directory / STATE, {**about, "mark": mark, "world": ranks.world})
            for old in self.directory.glob("*.safetensors"):
                if not old.name.startswith(mark):
                    remove(old)
        ranks.barrier()
        self._saved = time.monotonic()

    def load(self, identity: str, ranks: Ranks) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What was saved of the same work by as many processes; empty where there is nothing."""
        about: dict[str, Any] = {}
        if (self.directory / STATE).is_file():
            about = json.loads((self.directory / STATE).read_text(encoding="utf-8"))
        # All take the main process's word for it, should they look at different disks.
        about = ranks.broadcast(about)
        if (about.get("identity"), about.get("world")) != (identity, ranks.world):
            return {}, {}
        return load_file(self._file(about["mark"], ranks)), about

    def discard(self) -> None:
        """Removes it: its work is done."""
        remove(self.directory)

    def _file(self, mark: str, ranks: Ranks) -> Path:
        return self.directory / f"{mark}.rank{ranks.rank}.safetensors"
