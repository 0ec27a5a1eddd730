"""Groups of settings of ``puzzle_vit``: plain dataclasses, free of torch and Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.checks import not_negative, positive, share
from adaptive.core.errors import UserError

METRICS = ("kl", "accuracy")


@dataclass
class SpaceConfig:
    """What may stand in a block's place, beside the parent's own halves."""

    # shares of the parent's heads, rounded to whole heads
    heads: list[float] = field(default_factory=lambda: [0.75, 0.5, 0.25])
    # shares of the MLP's width, rounded to multiples of `multiple`
    mlp: list[float] = field(default_factory=lambda: [0.75, 0.5, 0.25])
    multiple: int = 16
    no_op: bool = True  # a half may be left out

    def validate(self) -> None:
        """Raises UserError for shares that are none."""
        positive("space", self, "multiple")
        for name in ("heads", "mlp"):
            wrong = [value for value in getattr(self, name) if not 0 < value < 1]
            if wrong:
                raise UserError(
                    f"space.{name}: {wrong[0]} must lie between 0 and 1: a share of what the "
                    "parent has; space.no_op leaves a half out"
                )
        if not (self.heads or self.mlp or self.no_op):
            raise UserError(
                "space.heads and space.mlp are empty and space.no_op=false: nothing is left to "
                "choose, name some shares"
            )


@dataclass
class LibraryConfig:
    """How the block library is made: closed-form fits, then blockwise local distillation."""

    images: int = 2048  # of the training set, that the fits look at
    ridge: float = 1e-4  # strength of the fits, in units of the mean feature variance
    steps: int = 2000  # of local distillation, of all variants together; 0: the fits alone
    batch: int = 128  # images of a step, and of a pass of the fits
    learning_rate: float = 3e-4
    warmup: float = 0.05  # share of the steps
    held_out: int = 512  # images that measure how well variants imitate the parent
    checkpoint_seconds: float = 60.0  # between two savings

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        positive("library", self, "images", "ridge", "batch", "learning_rate", "held_out")
        not_negative("library", self, "steps", "checkpoint_seconds")
        share("library", self, "warmup")


@dataclass
class ScoreConfig:
    """Replace-one-block scores, on training images that nothing else of the run looks at."""

    images: int = 1024
    batch: int = 128
    # kl: KL divergence (nats) from the parent at its full grid; accuracy: percentage points lost
    metric: str = "kl"

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        positive("score", self, "images", "batch")
        if self.metric not in METRICS:
            raise UserError(f"score.metric={self.metric!r}: choose one of {', '.join(METRICS)}")


@dataclass
class CostConfig:
    """How the halves of blocks are timed; device, batch and precision are those of ``evaluate``."""

    seconds: float = 120.0  # for the timing of everything together
    spread: float = 0.01  # relative error of a median at which to stop earlier
    table: str | None = None  # file of measured times; null: the user's, for this device

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        positive("cost", self, "seconds", "spread")


@dataclass
class SearchConfig:
    """How the allocations are found."""

    solver: str = "mip"
    gap: float = 1e-4
    time_limit: float = 60.0
    tighten: int = 1  # further searches where a measured latency misses the budget; 0: no check
    isotonic: bool = True  # repair ladders on which a cheaper option scores better: that is noise
    # shares of the parent's latency for the frontiers of the report
    frontier: list[float] = field(default_factory=lambda: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        not_negative("search", self, "gap", "tighten")
        positive("search", self, "time_limit")
        if any(not 0 < part <= 1 for part in self.frontier):
            raise UserError(
                f"search.frontier={self.frontier} must list shares of the latency, above 0 up to 1"
            )


@dataclass
class GlobalConfig:
    """Distillation of every answer, as a whole, from the parent at its full grid."""

    epochs: int = 30  # 0: none
    batch: int = 256
    learning_rate: float = 5e-4
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    weight: float = 1.0  # of the parent's part in the loss; the labels have the rest
    temperature: float = 1.0
    checkpoint_seconds: float = 60.0

    def validate(self) -> None:
        """Raises UserError for values out of range."""
        not_negative("gkd", self, "epochs", "warmup_epochs", "weight_decay", "checkpoint_seconds")
        positive("gkd", self, "batch", "learning_rate", "temperature")
        share("gkd", self, "weight")
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise UserError(
                f"gkd.warmup_epochs={self.warmup_epochs} must be below gkd.epochs={self.epochs}"
            )
