"""Images and their words as a network that spends tokens sees them.

Shapes: B images (one here), H x W pixels of the input, N words, S nodes that may split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from adaptive.core.prior import Prior, build_prior
from adaptive.core.solvers.quadtree import Geometry
from adaptive.textscale.canvas import padded, resized
from adaptive.textscale.data.labelled import Sample
from adaptive.textscale.tokens.config import ORACLE, TextTokensConfig, names_of
from adaptive.textscale.tokens.known import KnownWords
from adaptive.textscale.words import Words


@dataclass(frozen=True)
class View:
    """An image as it goes into the network.

    Attributes:
        input_HW3: resized and padded to whole coarsest patches.
        words: in its pixels.
        geometry: of its quadtrees.
    """

    input_HW3: UInt8[ndarray, "H W 3"]
    words: Words
    geometry: Geometry

    def tensor(self, device: str) -> Float[Tensor, "1 3 H W"]:
        """In [0, 1]."""
        # A copy: the image may be read-only.
        image_HW3 = torch.tensor(self.input_HW3, device=device)
        return image_HW3.permute(2, 0, 1)[None].float() / 255


def view(image_HW3: UInt8[ndarray, "_ _ 3"], words: Words, side: int, tree: Geometry) -> View:
    """An image at a long side, padded.

    Args:
        image_HW3: RGB.
        words: of the image.
        side: long side in pixels; 0: as it is.
        tree: sides of the finest and of the coarsest patches; its own size does not count.
    """
    height, width = image_HW3.shape[:2]
    ratio = side / max(height, width) if side else 1.0
    small = tuple(max(1, round(length * ratio)) for length in (width, height))
    input_HW3 = padded(resized(image_HW3, *small), tree.max_patch)
    by_2 = np.array([small[0] / width, small[1] / height], np.float32)
    return View(
        input_HW3,
        replace(words, quad_N42=words.quad_N42 * by_2),
        replace(tree, height=input_HW3.shape[0], width=input_HW3.shape[1]),
    )


def make_priors(config: TextTokensConfig, device: str) -> dict[str, Prior]:
    """The priors of a configuration, by name.

    Raises:
        UserError: an expression that is none, or weights that are not there.
    """
    return {
        name: (
            KnownWords(legible=config.cover.legible) if text == ORACLE else build_prior(text)
        ).to(device)
        for name, text in names_of(config.priors).items()
    }


def telling(samples: Iterable[Sample], prior: Prior, side: int, tree: Geometry) -> Iterator[Sample]:
    """The samples; a prior that knows the words is told those of each before it is handed on."""
    for sample in samples:
        if isinstance(prior, KnownWords):
            prior.words = view(*sample[1:], side, tree).words
        yield sample
