"""Features of a small network: where they change from one place to the next.

Shapes: B images, D channels of the features, H and W pixels, h and w of the feature map.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.prior.area import area_resize
from adaptive.core.prior.base import PRIORS, MapPrior
from adaptive.core.solvers.quadtree.geometry import Geometry

STRIDE = 32  # of the networks at their end: sides that are multiples of it need no padding


class FrozenFeatures(MapPrior):
    """A prior from features of a frozen network: their squared distance to their surroundings.

    Args:
        config: the network's data configuration as timm gives it; its mean and std are used.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: dict, *, alpha: float | None = None):
        super().__init__(alpha=alpha)
        for name in ("mean", "std"):
            value_311 = torch.tensor(config[name]).view(3, 1, 1)
            self.register_buffer(name, value_311, persistent=False)

    @abstractmethod
    def features(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B D h w"]:
        """Features of images in [0, 1]."""

    def saliency(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B h w"]:
        return contrast(self.features(image_BCHW, geometry).float())

    def shrunk(
        self, image_BCHW: Float[Tensor, "B 3 H W"], size: tuple[int, int]
    ) -> Float[Tensor, "B 3 h w"]:
        """The images at another size, normalised as the network takes them."""
        return (area_resize(image_BCHW, *size) - self.mean) / self.std

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stays in evaluation mode: a score must not depend on the rest of the batch."""
        return super().train(False)


def freeze(network: nn.Module) -> nn.Module:
    """A network that is used and not trained."""
    return network.requires_grad_(False).eval()


def contrast(x_BDhw: Float[Tensor, "B D h w"]) -> Float[Tensor, "B h w"]:
    """Mean over channels of the squared difference between features and their 3 x 3 mean.

    Ronen et al., 2023 compare features of an image with those of blurred copies, in three passes.
    Blurring the features themselves takes one.
    """
    around_BDhw = nn.functional.avg_pool2d(x_BDhw, 3, 1, 1, count_include_pad=False)
    return (x_BDhw - around_BDhw).square().mean(1)


@PRIORS.register("feature")
class FeaturePrior(FrozenFeatures):
    """Contrast of a small convolutional network's features, in one pass over a small copy.

    Args:
        network: any timm name with a ``features_only`` form.
        pretrained: load timm's weights; random ones, which respond to edges and texture, else.
        size: longer side of the copy in pixels, at most.
        reduction: stride of the feature map, one that the network has.
    """

    def __init__(
        self,
        *,
        network: str = "lcnet_050",
        pretrained: bool = False,
        size: int = 128,
        reduction: int = 8,
        alpha: float | None = None,
    ):
        import timm
        from timm.data.config import resolve_data_config

        where = f"feature(network={network!r}, pretrained={pretrained})"
        if network not in timm.list_models():
            raise UserError(f"{where}: timm has no such network, see timm.list_models()")
        if size < STRIDE:
            raise UserError(f"feature(size={size}) must be at least {STRIDE} pixels")
        try:
            with torch.device("meta"):
                outline: Any = timm.create_model(network, features_only=True)
            levels = outline.feature_info.reduction()
        except (AttributeError, RuntimeError) as error:
            raise UserError(f"{where}: timm has no features_only form of it ({error})") from None
        if reduction not in levels:
            raise UserError(f"feature(reduction={reduction}) must be one of {levels} of {network}")
        wanted = (levels.index(reduction),)
        made = create(where, network, pretrained, features_only=True, out_indices=wanted)
        super().__init__(resolve_data_config({}, model=made), alpha=alpha)
        self.network, self.size = freeze(made), size

    def features(
        self, image_BCHW: Float[Tensor, "B 3 H W"], geometry: Geometry
    ) -> Float[Tensor, "B D h w"]:
        scale = min(1.0, self.size / max(geometry.size))
        height, width = (max(STRIDE, int(s * scale) // STRIDE * STRIDE) for s in geometry.size)
        small_BCHW = self.shrunk(image_BCHW, (height, width))
        return self.network(small_BCHW.to(next(self.network.parameters()).dtype))[0]


def create(where: str, name: str, pretrained: bool, **settings) -> nn.Module:
    """A timm model; ``where`` names the setting in messages.

    Raises:
        UserError: pretrained weights that do not exist or cannot be reached.
    """
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **settings)
    except Exception as error:  # hubs raise whatever their clients do
        if not pretrained:
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"{where}: its weights cannot be loaded ({reason}); connect to the hub, fill its cache "
            "or set pretrained=False"
        ) from error
