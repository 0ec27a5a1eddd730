"""Configuration of ``textscale_tokens``: plain dataclasses, free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.checks import positive
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, TaskConfig
from adaptive.textscale.config import TextData
from adaptive.textscale.detectors import DetectorConfig

ORACLE = "oracle"
"""What a prior is set to that knows the annotated words."""


@dataclass
class CoverConfig:
    """When a word counts as shown well enough."""

    # sides of the finest and of the coarsest patches in pixels, where no network with patches of
    # its own is named
    patch: int = 16
    max_patch: int = 64
    legible: float = (
        12.0  # height in pixels at which a word must be shown; a coarse patch shrinks it
    )
    whole: float = 0.9  # share of a word's area that must be shown so

    def validate(self) -> None:
        """Raises UserError for values that mean nothing."""
        positive("cover", self, "patch", "max_patch", "legible")
        if not 0 < self.whole <= 1:
            raise UserError(f"cover.whole={self.whole} must lie above 0, to 1")


@dataclass
class TextTokensConfig(TaskConfig):
    """Where a detector's tokens are spent: words covered, and words found, by prior and share."""

    data: TextData = field(default_factory=TextData)
    # expressions of priors, such as "text(net='runs/textscale', side=480)", and "oracle", which
    # knows the annotated words
    priors: list[str] = field(
        default_factory=lambda: [ORACLE, "gain", "blur", "centre", "random"],
    )
    shares: list[float] = field(  # of the tokens of the full grid
        default_factory=lambda: [1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1]
    )
    side: int = 0  # long side in pixels that images are brought to; 0: as they are
    # a trained network whose backbone spends tokens; path empty: only what is covered is measured
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    # another detector, on whole images at the long sides of `sides`, beside it; path empty: none
    rival: DetectorConfig = field(default_factory=DetectorConfig)
    sides: list[int] = field(default_factory=lambda: [480, 640, 960, 1280])
    cover: CoverConfig = field(default_factory=CoverConfig)

    def validate(self) -> None:
        if not self.data.images:
            raise UserError("data.images is empty: name a folder, .tar or .zip of photographs")
        if not self.priors:
            raise UserError("priors is empty: name at least one, such as priors=[oracle,gain]")
        if not self.shares or any(not 0 < share <= 1 for share in self.shares):
            raise UserError(f"shares={list(self.shares)} must be shares of the grid, above 0 to 1")
        if any(side < 1 for side in self.sides):
            raise UserError(f"sides={self.sides} must be long sides in pixels")
        if self.rival.path and not self.sides:
            raise UserError("sides is empty: name long sides for rival.path, such as sides=[640]")
        if self.side < 0:
            raise UserError(f"side={self.side} must be a long side in pixels, or 0")
        self.cover.validate()
        for prefix, detector in (("detector", self.detector), ("rival", self.rival)):
            if detector.path:
                detector.validate(prefix)
        if self.detector.kind != "network":
            raise UserError(
                f"detector.kind={self.detector.kind} has no tokens: name a run of textscale_train "
                "with such a backbone in detector.path, and an ONNX file in rival.path"
            )


def names_of(priors: list[str]) -> dict[str, str]:
    """Short names of expressions, for tables: what stands before settings, where that tells them
    apart."""
    short = [text.partition("(")[0].strip() for text in priors]
    return {
        name if name.isidentifier() and short.count(name) == 1 else text: text
        for name, text in zip(short, priors, strict=True)
    }


TASKS.register(
    "textscale_tokens",
    config=TextTokensConfig,
    entry="adaptive.textscale.tokens.pipeline:tokens_stages",
)
