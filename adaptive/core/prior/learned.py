"""A small network that says in one cheap pass what an oracle would.

Shapes: B images, C channels, H and W pixels, h and w of the map.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.prior.area import area_resize
from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.solvers.quadtree.geometry import Geometry

STRIDE = 8  # of the network


@PRIORS.register("learned")
class LearnedPrior(MapPrior):
    """A convolutional network's map, distilled from an oracle (:func:`distill_prior`).

    It sees a small copy of the image and where each pixel lies, so that it can learn where things
    usually are. Untrained it gives the same to every place. Its weights take part in no training
    but its own.

    Args:
        weights: a safetensors file that :meth:`save` wrote; None: untrained.
        width: channels of the first layer.
        size: longer side of the copy in pixels, at most.
    """

    def __init__(
        self,
        *,
        weights: str | Path | None = None,
        width: int = 16,
        size: int = 128,
        alpha: float | None = None,
    ):
        super().__init__(alpha=alpha)
        if width < 1 or size < STRIDE:
            raise UserError(
                f"learned(width={width}, size={size}) needs a width of at least 1 and a size of at "
                f"least {STRIDE} pixels"
            )
        self.width, self.size = width, size
        self.stem = nn.Sequential(
            nn.Conv2d(5, width, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
        )
        # Dilated, so that a place is judged by its surroundings.
        self.context = nn.ModuleList(
            nn.Conv2d(2 * width, 2 * width, 3, padding=dilation, dilation=dilation)
            for dilation in (1, 2, 4)
        )
        self.head = nn.Conv2d(2 * width, 1, 1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        if weights is not None:
            self._load(Path(weights))
        self.requires_grad_(False)

    def logits(self, image_BCHW: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w"]:
        """Logarithm of each place's worth, up to a constant; for RGB in [0, 1]."""
        size = image_BCHW.shape[2:]
        scale = min(1.0, self.size / max(size))
        rows, cols = (max(STRIDE, int(side * scale) // STRIDE * STRIDE) for side in size)
        small_BCHW = 2 * area_resize(image_BCHW, rows, cols) - 1
        places = [
            (2 * torch.arange(side, device=small_BCHW.device) + 1 - side) / side
            for side in (rows, cols)
        ]
        place_CHW = torch.stack(torch.meshgrid(*places, indexing="ij"))
        place_BCHW = place_CHW.expand(small_BCHW.shape[0], -1, -1, -1)
        x_BCHW = torch.cat([small_BCHW, place_BCHW], 1).to(self.head.weight.dtype)
        x_BCHW = self.stem(x_BCHW)
        for layer in self.context:
            x_BCHW = x_BCHW + layer(nn.functional.gelu(x_BCHW))
        return self.head(x_BCHW)[:, 0].float()

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        logits_Bhw = self.logits(image_BCHW)
        share_BP = logits_Bhw.flatten(1).softmax(1)
        return (share_BP * share_BP.shape[1]).view_as(logits_Bhw)

    def save(self, path: str | Path) -> None:
        """Writes the weights as safetensors."""
        from safetensors.torch import save_file

        save_file(self.state_dict(), path)

    def _load(self, path: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            self.load_state_dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"learned(weights={str(path)!r}) cannot be read: {error}") from None
        except RuntimeError:
            raise UserError(
                f"learned(weights={str(path)!r}) are not those of a learned prior of "
                f"width={self.width}: set the width that they were trained with"
            ) from None
