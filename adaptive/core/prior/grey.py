"""Grey levels of RGB images."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def grey(image_BCHW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
    """Luma by ITU-R BT.601."""
    red_BHW, green_BHW, blue_BHW = image_BCHW.unbind(1)
    return 0.299 * red_BHW + 0.587 * green_BHW + 0.114 * blue_BHW
