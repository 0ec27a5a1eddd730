"""Images of the demonstration; nothing is downloaded.

Shapes: H x W pixels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.textscale.data.config import SCENE
from adaptive.textscale.data.render import Renderer
from adaptive.textscale.words import Words

SEED = 3


def demo_image(name: str) -> tuple[UInt8[ndarray, "H W 3"], Words | None]:
    """An image of the demonstration by its name, RGB, and its words where they are known.

    Args:
        name: ``scene`` is rendered and knows its words; others are scikit-image's.
    """
    if name == "scene":
        return Renderer(SCENE)(0, SEED)
    import skimage.data

    grey_HW = np.asarray(getattr(skimage.data, name)())
    return np.repeat(grey_HW[:, :, None], 3, 2), None
