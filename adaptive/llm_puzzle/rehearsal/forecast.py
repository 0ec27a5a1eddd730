"""From what a rehearsal took to what the full run will take.

Times are scaled by counted work: of a stage whose work is known in FLOPs the rehearsal gives the
rate, which holds for the full run as far as its batches are as large. What of a stage is not that
work, initialisation and loading, is scaled by the number of layers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.run import Manifest
from adaptive.core.run.manifest import MANIFEST
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.distill import training_flops
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.score import scoring_flops
from adaptive.llm_puzzle.shapes import shape, stack
from adaptive.llm_puzzle.space import LayerSpace

SHARED = ("library", "scores", "child")
"""Stages whose work is divided among GPUs."""


@dataclass(frozen=True)
class Job:
    """A run whose work can be counted: the rehearsal, or the full one.

    Attributes:
        config: of the run.
        model: the parent.
        space: options of every layer.
        width: bytes of a weight.
    """

    config: PuzzleConfig
    model: PuzzleModelConfig
    space: Sequence[LayerSpace]
    width: int

    @property
    def params(self) -> int:
        """Of the parent."""
        return stack(self.model).params()

    def flops(self, stage: str) -> float | None:
        """Work of a stage; None where it has no formula.

        Calibration is the parent's forward on the validation rows; of global distillation the
        child is taken to be as large as the parent.
        """
        config = self.config
        if stage == "calibration":
            return 2.0 * self.params * config.data.validation_tokens
        if stage == "library":
            wanted = [options.variants for options in self.space]
            own = [options.parent for options in self.space]
            return sum(training_flops(self.model, wanted, own)) * config.distill.tokens
        if stage == "scores":
            work = scoring_flops(self.model, self.space, config.score.granularity)
            return sum(work) * config.score.tokens
        if stage == "child":
            runs = 1 + len(config.baselines)
            tokens = config.gkd.tokens + config.gkd.long.tokens
            return runs * 8.0 * self.params * tokens
        return None

    def repeats(self, stage: str) -> int:
        """How often a stage's work is done."""
        return self.config.search.rounds if stage == "scores" else 1

    def library_bytes(self) -> int:
        """Of all variants on disk."""
        params = sum(
            shape(self.model, option).params()
            for options in self.space
            for option in options.variants
        )
        return params * self.width

    def activation_bytes(self) -> int:
        """Of the calibration rows' activations, as a walk keeps them."""
        return 5 * self.config.data.tokens * self.model.hidden_size * self.width


@dataclass(frozen=True)
class Taken:
    """What a stage of the rehearsal took.

    Attributes:
        seconds: by the wall.
        gpu_bytes: most on the GPU; 0 without one.
        working: seconds of it that grow with the counted work; the others, of initialisation,
            loading and compiling, grow with the number of layers. None: all of them.
    """

    seconds: float
    gpu_bytes: int
    working: float | None = None

    @staticmethod
    def of(run: Path) -> dict[str, Taken]:
        """Of all finished stages of a run directory, in the order in which they ended."""
        found = {}
        ended = sorted((run / "artifacts").glob(f"*/{MANIFEST}"), key=lambda f: f.stat().st_mtime)
        for directory in (file.parent for file in ended):
            manifest = Manifest.read(directory)
            if manifest is not None and manifest.done:
                speed, working = directory / "speed_0.json", None
                if speed.is_file():
                    told = json.loads(speed.read_text(encoding="utf-8"))["seconds"]
                    working = min(told, manifest.seconds)
                found[manifest.stage] = Taken(manifest.seconds, manifest.gpu_bytes, working)
        return found

    def scaled(self, work: float, layers: float) -> float:
        """Seconds of so many times the work in so many times the layers."""
        working = self.seconds if self.working is None else self.working
        return working * work + (self.seconds - working) * layers


def forecast(
    rehearsed: Job, full: Job, taken: dict[str, Taken], gpus: Sequence[int]
) -> list[dict[str, Any]]:
    """One row a stage: what it took and what it will take.

    Args:
        rehearsed, full: the two runs.
        taken: by the rehearsal's stages.
        gpus: numbers of GPUs to forecast for.

    Returns:
        Rows with ``stage``, ``seconds``, ``gpu_bytes``, ``factor`` (work of the full run over that
        of the rehearsal), ``repeats`` (rounds of scoring) and ``hours on N GPUs``.
    """
    # Global distillation that was not rehearsed is taken to be as fast as the local one was.
    library = taken["library"]
    rate = (rehearsed.flops("library") or 0.0) / max(library.working or library.seconds, 1e-9)
    deeper = len(full.space) / len(rehearsed.space)
    rows = []
    for stage, spent in taken.items():
        work, whole = rehearsed.flops(stage), full.flops(stage)
        if not whole:
            seconds = spent.seconds
        elif work:
            seconds = full.repeats(stage) * spent.scaled(whole / work, deeper)
        else:
            seconds = whole / max(rate, 1.0)
        rows.append(
            {
                "stage": stage,
                "seconds": spent.seconds,
                "gpu_bytes": spent.gpu_bytes,
                "factor": whole / work if work and whole else None,
                "repeats": full.repeats(stage),
                **{hours_on(n): seconds / 3600 / (n if stage in SHARED else 1) for n in gpus},
            }
        )
    return rows


def hours_on(gpus: int) -> str:
    """The name of a column."""
    return f"hours on {gpus} GPU{'s' if gpus > 1 else ''}"
