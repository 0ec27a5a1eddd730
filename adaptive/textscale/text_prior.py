"""Text as image saliency: ``build_prior("text(net='runs/textscale')")``.

Shapes: B images, H x W pixels, h x w cells of 4 x 4 pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptive.core.errors import UserError
from adaptive.core.prior import PRIORS, MapPrior
from adaptive.core.solvers.quadtree.geometry import Geometry
from adaptive.textscale.network.checkpoint import load_net
from adaptive.textscale.network.files import weights_file
from adaptive.textscale.network.net import SCALE, STRIDE, TEXT, TextNet
from adaptive.textscale.words import CANONICAL

OCTAVES = (16.0, 32.0, 64.0, 128.0)
"""Scales in pixels up to which words are grown alike; larger ones are grown as the last."""


@PRIORS.register("text")
class TextPrior(MapPrior):
    """Where there is text that a coarse patch would make illegible.

    The map is the network's probability of text times ``32 / (32 + s)``, s the scale of the text in
    pixels, grown from the cores of words to their outlines. The factor is the need of resolution: a
    patch at a half or a quarter of the resolution still shows large letters, and not those whose
    strokes are a pixel or two wide. At the canonical 32 pixels it is one half, for tiny text one.

    Args:
        net: a network, or what :func:`~adaptive.textscale.network.load_net` takes. Its weights take
            part in no training but its own.
        side: long side in pixels of the copy that it sees, as a prior that looks at every pixel
            costs more than it saves; never above the image's, and 0: the image as it is.
    """

    def __init__(self, *, net: TextNet | str | Path, side: int = 0, alpha: float | None = None):
        super().__init__(alpha=alpha)
        if side < 0:
            raise UserError(f"text(side={side}) must be a long side in pixels, or 0")
        self.side = side
        self.net = (net if isinstance(net, TextNet) else load_net(net)).eval()
        self.net.requires_grad_(False)

    @classmethod
    def files(cls, **settings: Any) -> list[Path]:
        """The weights that are read of a run's directory; the rest of it may change."""
        net = settings.get("net")
        return [weights_file(net)] if isinstance(net, str | Path) else []

    def train(self, mode: bool = True) -> TextPrior:
        """As for any module, but statistics of the network's normalisation stay as they are."""
        super().train(mode)
        self.net.eval()
        return self

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        ratio = min(1.0, self.side / max(image_BCHW.shape[2:])) if self.side else 1.0
        if ratio < 1:
            height, width = (max(1, round(ratio * length)) for length in image_BCHW.shape[2:])
            image_BCHW = functional.interpolate(
                image_BCHW, (height, width), mode="bilinear", antialias=True
            )
        height, width = image_BCHW.shape[2:]
        below, right = -height % self.net.multiple, -width % self.net.multiple
        padded_BCHW = functional.pad(image_BCHW, (0, right, 0, below), mode="replicate")
        output_B3hw = self.net(padded_BCHW)
        worth_B1hw = need(output_B3hw[:, TEXT : TEXT + 1], output_B3hw[:, SCALE : SCALE + 1], ratio)
        # The map is of the padded image; as many cells as the image itself has, in proportion.
        rows, columns = -(-height // STRIDE), -(-width // STRIDE)
        return worth_B1hw[:, 0, :rows, :columns].float()


def need(
    logit_B1hw: Float[Tensor, "B 1 h w"],
    log_scale_B1hw: Float[Tensor, "B 1 h w"],
    ratio: float = 1.0,
) -> Float[Tensor, "B 1 h w"]:
    """Probability of text times its need of resolution, grown to the words' outlines.

    A word reaches beyond its core by up to half its scale, so the cells of each octave of scales
    are grown by half of its largest.

    Args:
        logit_B1hw: of text.
        log_scale_B1hw: ``ln(s / 32)``, s in pixels of what the network saw.
        ratio: pixels of that for each of the image.
    """
    # 32 / (32 + s) is the logistic function of -ln(s / 32).
    worth_B1hw = logit_B1hw.sigmoid() * (math.log(ratio) - log_scale_B1hw).sigmoid()
    scale_B1hw = CANONICAL * log_scale_B1hw.exp()
    grown_B1hw, low = worth_B1hw, 0.0
    for high in OCTAVES:
        last = high == OCTAVES[-1]
        here = (scale_B1hw >= low) & ((scale_B1hw < high) | last)
        wide_B1hw = _grown(torch.where(here, worth_B1hw, 0.0), round(high / 2 / STRIDE))
        grown_B1hw = torch.maximum(grown_B1hw, wide_B1hw)
        low = high
    return grown_B1hw


def _grown(map_B1hw: Tensor, radius: int) -> Tensor:
    """The greatest value within so many cells along both sides."""
    side = 2 * radius + 1
    wide_B1hw = functional.max_pool2d(map_B1hw, (1, side), 1, (0, radius))
    return functional.max_pool2d(wide_B1hw, (side, 1), 1, (radius, 0))
