"""Synthetic images of text with exact corners.

An image depends on the seed, its index and the settings, and on nothing else: not on the images
before it, nor on who renders it.

Shapes: H x W pixels, N words, 4 corners, 2 coordinates, K kinds of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from adaptive.core.registry import Registry
from adaptive.textscale.data.backgrounds import Photographs, texture
from adaptive.textscale.data.blocks import draw_block, find_place
from adaptive.textscale.data.config import SHARES, RenderConfig
from adaptive.textscale.data.damage import damaged, shaded
from adaptive.textscale.data.fonts import font_files
from adaptive.textscale.data.icdar import DONT_CARE
from adaptive.textscale.data.paint import paint
from adaptive.textscale.data.render_page import page
from adaptive.textscale.words import Words, short_sides

LEGIBLE = 4.0
"""Words less than so many standard deviations of the blur high are not to be cared about."""

_DRAWS = 3
"""Blocks that are tried for a place before its height is given up."""

Image = UInt8[ndarray, "H W 3"]
Drawn = tuple[Image, Float64[ndarray, "N 4 2"], list[str]]


class Renderer:
    """Renders images by index; can be pickled and shared by processes.

    Attributes:
        config: what the images look like.
        fonts: files that texts are set in.
    """

    def __init__(self, config: RenderConfig | None = None):
        """Opens fonts and photographs.

        Raises:
            UserError: they are not there, or settings mean nothing.
        """
        self.config = config or RenderConfig()
        self.config.validate()
        self.fonts = font_files(self.config.fonts)
        shares = self.config.shares or SHARES
        self._kinds = [name for name in shares if shares[name]]
        share_K = np.array([shares[name] for name in self._kinds])
        self._share_K = share_K / share_K.sum()
        for name in self._kinds:
            KINDS[name]
        wanted = "photograph" in self._kinds
        self._photographs = (
            Photographs(self.config.photographs, self.config.photographs_gt) if wanted else None
        )

    @property
    def photographs(self) -> Photographs:
        """Backgrounds of scenes."""
        assert self._photographs is not None, "photographs have a share above 0"
        return self._photographs

    def __call__(self, index: int, seed: int = 0) -> tuple[Image, Words]:
        """One image and its words.

        Args:
            index: of the image, from 0.
            seed: of all images.
        """
        rng = np.random.default_rng([seed, index])
        kind = self._kinds[rng.choice(len(self._kinds), p=self._share_K)]
        image_HW3, quad_N42, texts = KINDS[kind](self, rng)
        image_HW3, blur = damaged(rng, shaded(rng, image_HW3), self.config.damage)
        quad_N42 = quad_N42.astype(np.float32)
        smallest = max(0.99 * self.config.min_scale, LEGIBLE * blur)
        care_N = short_sides(quad_N42) >= smallest
        texts = [text if care else DONT_CARE for text, care in zip(texts, care_N, strict=True)]
        return image_HW3, Words(quad_N42, care_N, tuple(texts))


KINDS: Registry[Callable[[Renderer, np.random.Generator], Drawn]] = Registry("kind of image")
"""Name in ``RenderConfig.shares`` to what draws such an image, before light and damage."""


@KINDS.register("photograph")
def photograph(renderer: Renderer, rng: np.random.Generator) -> Drawn:
    """Blocks of text on a photograph."""
    config = renderer.config
    return scene(renderer, rng, renderer.photographs.cut(rng, config.height, config.width))


@KINDS.register("texture")
def textured(renderer: Renderer, rng: np.random.Generator) -> Drawn:
    """Blocks of text on a surface."""
    return scene(renderer, rng, texture(rng, renderer.config.height, renderer.config.width))


@KINDS.register("page")
def printed(renderer: Renderer, rng: np.random.Generator) -> Drawn:
    """A page of print."""
    return page(rng, renderer.fonts, renderer.config)


def scene(renderer: Renderer, rng: np.random.Generator, image_HW3: Image) -> Drawn:
    """Blocks of text on a background, which is painted on.

    The heights of blocks are log-uniform; large ones are placed first, as they find room hardest.
    Small ones hold more words, as on walls and packages.
    """
    config = renderer.config
    count = int(rng.integers(min(2, config.blocks), config.blocks + 1))
    low, high = math.log(config.min_scale), math.log(config.max_scale)
    heights = sorted(np.exp(rng.uniform(low, high, count)).tolist(), reverse=True)
    taken_HW = np.zeros(image_HW3.shape[:2], np.uint8)
    quads: list[np.ndarray] = []
    texts: list[str] = []
    for height in heights:
        for _ in range(_DRAWS):
            block = draw_block(rng, renderer.fonts, height, 0.9 * config.width)
            placed = None if block is None else find_place(rng, block, taken_HW, image_HW3)
            if placed is not None:
                paint(rng, image_HW3, placed)
                quads.append(placed.quads())
                texts += placed.ink.texts
                break
    return image_HW3, np.concatenate([np.zeros((0, 4, 2)), *quads]), texts
