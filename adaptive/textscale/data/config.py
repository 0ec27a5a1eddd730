"""Configuration of rendering: plain dataclasses, free of heavy imports; YAML holds differences."""

from __future__ import annotations

from dataclasses import dataclass, field

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, TaskConfig

SHARES = {"photograph": 0.6, "texture": 0.2, "page": 0.2}
"""Kinds of images where nothing else is asked for."""

RENDERED = "render:"
"""Before the number of scenes, where a setting names images: ``render:24``."""

LONGEST = 32_000
"""Pixels that OpenCV's warps can address on a side."""


@dataclass
class RenderConfig:
    """What synthetic scenes look like.

    Photographs are background: they should show no text, or come with annotations of the text that
    they show, which is then painted over.
    """

    height: int = 640  # of an image in pixels
    width: int = 640
    min_scale: float = 6.0  # short side of the smallest words in pixels
    max_scale: float = 160.0
    blocks: int = 14  # of text in a scene, at most
    # kind of image (adaptive.textscale.data.render.KINDS) to its share; empty: SHARES
    shares: dict[str, float] = field(default_factory=dict)
    # folder, .zip or .tar of photographs; skimage: those that scikit-image ships
    photographs: str = "skimage"
    photographs_gt: str | None = None  # folder, .zip or .tar of their annotations
    fonts: str = "matplotlib"  # or system: those of this machine too
    fill: float = 1.0  # share of a page's paragraphs that are there; the others are left blank
    damage: float = 1.0  # of blur, noise and JPEG; 0: none

    def validate(self) -> None:
        """Raises UserError for values that nothing can be rendered with."""
        for name in ("height", "width"):
            if not 64 <= getattr(self, name) <= LONGEST:
                raise UserError(
                    f"render.{name}={getattr(self, name)} must lie in 64 to {LONGEST} pixels"
                )
        if not 4 <= self.min_scale < self.max_scale:
            raise UserError(
                f"render.min_scale={self.min_scale} and render.max_scale={self.max_scale} must be "
                "at least 4 pixels, the first below the second"
            )
        if self.blocks < 1:
            raise UserError(f"render.blocks={self.blocks} must be at least 1")
        shares = (self.shares or SHARES).values()
        if min(shares) < 0 or not sum(shares) > 0:
            raise UserError(f"render.shares={self.shares} must be shares, one of them above 0")
        if not 0 < self.fill <= 1:
            raise UserError(f"render.fill={self.fill} must lie in 0 to 1, 0 excluded")
        if self.damage < 0:
            raise UserError(f"render.damage={self.damage} must not be negative")
        if self.photographs_gt is not None and self.photographs == "skimage":
            raise UserError("render.photographs_gt annotates a folder: name it in photographs")


SCENE = RenderConfig(height=960, width=1280, max_scale=60.0, shares={"photograph": 1.0})
"""Photographs of scikit-image with signs on them, a few of them small."""


@dataclass
class TextRenderConfig(TaskConfig):
    """Render annotated images into a folder of ICDAR's form."""

    device: str = "cpu"  # nothing here runs elsewhere
    output: str = ""  # folder for img_N.jpg and gt_img_N.txt
    images: int = 100
    workers: int | None = None  # processes; null: as many as there are cores
    quality: int = 95  # of the JPEG files
    render: RenderConfig = field(default_factory=RenderConfig)

    def validate(self) -> None:
        self.render.validate()
        if not self.output:
            raise UserError("output is empty: name the folder that images should go to")
        if self.images < 1:
            raise UserError(f"images={self.images} must be at least 1")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers={self.workers} must be at least 1, or null")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality={self.quality} must lie in 1 to 100")


TASKS.register(
    "textscale_render",
    config=TextRenderConfig,
    entry="adaptive.textscale.data.stages:render_stages",
)
