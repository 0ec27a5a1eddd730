"""Groups of settings of TextScale's tasks: plain dataclasses, free of torch, OpenCV and Hydra."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from adaptive.core.errors import UserError

PASS1_SIDE = 480


@dataclass
class AdaptConfig:
    """How text is found on a small copy, and what is spent on a second look."""

    # long side in pixels of the copy that pass 1 sees, never above the image's; a budget that does
    # not reach for it is all spent on pass 1; 0: what the prior is made for (736 for ONNX files,
    # else 480)
    pass1_side: int = 0
    # share of a large budget that pass 1 takes where that makes its copy larger than pass1_side
    pass1_share: float = 0.5
    threshold: float = 0.2  # probability above which pass 1 suspects text
    # heights in pixels that a region's text may be brought to; 32 is canonical
    heights: list[float] = field(default_factory=lambda: [12.0, 16.0, 20.0, 25.0, 32.0, 44.0, 60.0])
    max_zoom: float = 3.0  # enlarging further shows nothing more
    # without a budget: expected share of the words that may be lost against every region at its
    # best zoom
    tolerance: float = 0.02
    # what a box where there is no text costs, in missed words
    false_alarm: float = 0.25
    stride: int = 32  # sides of the detectors' inputs are multiples of it
    gutter: int = 8  # pixels between two chips on a canvas
    max_side: int = 2048  # of a canvas
    # of a canvas, as more text goes to further ones, and of pass 1's copy
    max_pixels: int = 4_000_000
    iou: float = 0.3  # two boxes that share more are one word

    def for_prior(self, mapper: Any) -> AdaptConfig:
        """These settings with the side that a prior is made for, where none is set."""
        return replace(
            self, pass1_side=self.pass1_side or getattr(mapper, "pass1_side", PASS1_SIDE)
        )

    def validate(self, prefix: str = "adapt") -> None:
        """Raises UserError for values that mean nothing."""
        for name in ("pass1_share", "max_zoom", "stride", "max_pixels"):
            if not getattr(self, name) > 0:
                raise UserError(f"{prefix}.{name}={getattr(self, name)} must be above 0")
        for name in ("pass1_side", "gutter", "tolerance", "false_alarm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{prefix}.{name}={getattr(self, name)} must not be negative")
        for name in ("threshold", "iou", "pass1_share"):
            if not getattr(self, name) < 1:
                raise UserError(f"{prefix}.{name}={getattr(self, name)} must be below 1")
        if not self.heights or min(self.heights) <= 0:
            raise UserError(
                f"{prefix}.heights={self.heights} must be heights of text in pixels, such as [32]"
            )
        if self.max_side < 2 * self.stride:
            raise UserError(
                f"{prefix}.max_side={self.max_side} must be at least {2 * self.stride}, two strides"
            )


@dataclass
class PixelBudget:
    """Limits of both passes together, with all padding, for each image; null: no limit."""

    pixels: Any = None  # such as 300000 or 0.3M
    latency: Any = None  # such as 30ms

    def limits(self) -> dict[str, Any]:
        """As a mapping."""
        return {"pixels": self.pixels, "latency": self.latency}


def budget_of(budget: Any) -> dict[str, Any]:
    """The limits of a budget that is given as a mapping or as None.

    Raises:
        UserError: for a resource that a second look does not spend.
    """
    limits = {name: value for name, value in dict(budget or {}).items() if value is not None}
    for name in limits.keys() - {"pixels", "latency"}:
        raise UserError(f"budget.{name} is not spent on images: set budget.pixels or .latency")
    return limits
