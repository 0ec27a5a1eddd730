"""Configuration of detection and its evaluation: plain dataclasses, free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adaptive.core.checks import positive
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Axis, TaskConfig
from adaptive.textscale.data.config import RENDERED
from adaptive.textscale.detectors import CHOICES, PRIORS, SAME, DetectorConfig
from adaptive.textscale.settings import AdaptConfig, PixelBudget

DEMO_IMAGES = ("page", "text", "scene")
"""What ``textscale_demo`` knows: two photographs of scikit-image, and a scene that is rendered."""


@dataclass
class TextDetectConfig(TaskConfig):
    """Find the words of all images of a folder."""

    input: str = ""  # folder, .zip or .tar of images
    output: str = ""  # folder for JSON, ICDAR's text files and overlays
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    prior: DetectorConfig = field(default_factory=lambda: DetectorConfig(SAME))  # of pass 1
    budget: PixelBudget = field(default_factory=PixelBudget)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    overlays: bool = True
    max_pixels: int = 150_000_000  # of an image in memory; a larger JPEG is decoded smaller

    def validate(self) -> None:
        for name in ("input", "output"):
            if not getattr(self, name):
                raise UserError(f"{name} is empty: name a folder")
        if self.max_pixels < 1:
            raise UserError(f"max_pixels={self.max_pixels} must be at least 1")
        validate_parts(self)


@dataclass
class TextData:
    """Annotated photographs."""

    root: str = "."  # directory that relative paths start from
    images: str = ""  # folder, .tar or .zip; render:N for so many scenes, which need no data
    gt: str | None = None  # the same of gt_NAME.txt; null: beside the images
    format: str = "icdar15"  # or mlt17


@dataclass
class TextEvalConfig(TaskConfig):
    """The second look against other ways to spend pixels, by the rules of ICDAR 2015."""

    data: TextData = field(default_factory=TextData)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    prior: DetectorConfig = field(default_factory=lambda: DetectorConfig(SAME))  # of pass 1
    budget: PixelBudget = field(default_factory=PixelBudget)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    # long sides at which the detector looks at whole images, named single_SIDE in the summary
    sides: list[int] = field(default_factory=lambda: [480, 720, 960, 1024, 1280, 1440])
    # name in BASELINES to its arguments
    baselines: dict[str, Any] = field(
        default_factory=lambda: {"tiling": {}, "fixed_zoom": {}, "three_zooms": {}}
    )
    oracle: bool = True  # also with a prior that knows the annotated words
    # fit the recall curve on these very images where detector.recall=null, from the single scales
    calibrate: bool = False

    def validate(self) -> None:
        if not self.data.images:
            raise UserError("data.images is empty: name a folder, .tar or .zip of photographs")
        if self.data.images.startswith(RENDERED):
            rendered(self.data.images)
        if any(side < 1 for side in self.sides):
            raise UserError(f"sides={self.sides} must be long sides in pixels")
        if self.calibrate and not self.sides:
            raise UserError("calibrate needs sides to see words at, such as sides=[480,960]")
        validate_parts(self)


def rendered(images: str) -> int:
    """How many scenes ``render:N`` asks for.

    Raises:
        UserError: N is no number above 0.
    """
    count = images.removeprefix(RENDERED)
    if not count.isdecimal() or int(count) < 1:
        raise UserError(f"data.images={images}: write a number of scenes, such as {RENDERED}24")
    return int(count)


def validate_parts(config: TextDetectConfig | TextEvalConfig) -> None:
    """Refuses values of the parts that both tasks have."""
    config.detector.validate()
    config.prior.validate("prior")
    config.adapt.validate()


@dataclass
class TextDemoConfig(TaskConfig):
    """Shows where a trained network suspects text, what it looks at again, and what it finds."""

    # directory of a finished textscale_train run, or zoo:NAME
    checkpoint: str = "zoo:textscale-small"
    images: list[str] = field(default_factory=lambda: list(DEMO_IMAGES))
    budget: PixelBudget = field(default_factory=PixelBudget)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    recall: str | None = None  # recall_curve.json of a textscale_eval run; null: a rough curve
    threads: int = 2  # of the CPU

    def validate(self) -> None:
        unknown = [name for name in self.images if name not in DEMO_IMAGES]
        if unknown or not self.images:
            raise UserError(
                f"images={self.images}: choose at least one of {', '.join(DEMO_IMAGES)}"
            )
        positive("", self, "threads")
        self.adapt.validate()


TASKS.register(
    "textscale_demo",
    config=TextDemoConfig,
    entry="adaptive.textscale.demo:stages",
)
TASKS.register(
    "textscale_detect",
    config=TextDetectConfig,
    entry="adaptive.textscale.pipeline:detect_stages",
    groups={"detector": CHOICES, "prior": PRIORS},
)
TASKS.register(
    "textscale_eval",
    config=TextEvalConfig,
    entry="adaptive.textscale.pipeline:eval_stages",
    groups={"detector": CHOICES, "prior": PRIORS},
    cost=(Axis("megapixels"), Axis("ms_per_image")),
    quality=(Axis("f", more=True),),
)
