"""Augmentation of whole batches on their device, each image with parameters of its own.

All that is random is a table of uniform numbers; the rest is arithmetic on it, which a compiler
fuses (:class:`~adaptive.quadformer.data.prepare.Prepare`): eager, it would move the batch through
memory some thirty times.

A prior is computed on the augmented image, so that the two are in step by themselves. A saliency
map that was made beforehand goes through the same geometry as its image.

Shapes: B images, R random numbers of each, C channels, H x W pixels; h x w of a saliency map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from adaptive.core.prior.grey import grey
from adaptive.quadformer.settings import AugmentConfig

Draws = Iterator[Tensor]
"""Numbers in [0, 1), one for each image [B] at a time."""

NUMBERS = 16  # that an image needs at most


def augment(
    image_BCHW: Float[Tensor, "B C H W"],
    config: AugmentConfig,
    u_BR: Float[Tensor, "B R"],
    map_B1hw: Float[Tensor, "B 1 h w"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B 1 h w"] | None]:
    """Random crop, mirror, colours and erasing, as the settings say.

    Args:
        image_BCHW: in [0, 1].
        config: probabilities and ranges; ``mixup`` and ``cutmix`` are :class:`Mix`'s.
        u_BR: :data:`NUMBERS` even random numbers in [0, 1) for each image.
        map_B1hw: saliency of the images.

    Returns:
        Augmented images, and their maps where there are some.
    """
    draws = iter(u_BR.unbind(1))
    theta_B23 = crop_and_flip(config, draws)
    image_BCHW = warp(image_BCHW, theta_B23)
    if map_B1hw is not None:
        map_B1hw = warp(map_B1hw, theta_B23)
    if config.three:
        image_BCHW = three_augment(image_BCHW, config.three, draws)
    if config.jitter:
        image_BCHW = jitter(image_BCHW, config.jitter, draws)
    if config.erase:
        image_BCHW, map_B1hw = erase(image_BCHW, config.erase, draws, map_B1hw)
    return image_BCHW, map_B1hw


def crop_and_flip(config: AugmentConfig, draws: Draws) -> Float[Tensor, "B 2 3"]:
    """Affine maps from a result's coordinates in [-1, 1] to the image's, one for each image.

    Crops are drawn as Inception does: a share of the area, the ratio of the sides (its logarithm
    evenly), then a place. A side that would be longer than the image's is cut to it.
    """

    low, high = config.crop
    area_B = low + (high - low) * next(draws)
    log_B = (2 * next(draws) - 1) * math.log(config.ratio)
    wide_B = (area_B.sqrt() * (log_B / 2).exp()).clamp(max=1)
    high_B = (area_B.sqrt() * (-log_B / 2).exp()).clamp(max=1)
    right_B = (2 * next(draws) - 1) * (1 - wide_B)
    down_B = (2 * next(draws) - 1) * (1 - high_B)
    mirror_B = torch.where(next(draws) < config.flip, -1.0, 1.0)
    zero_B = torch.zeros_like(wide_B)
    rows = [wide_B * mirror_B, zero_B, right_B, zero_B, high_B, down_B]
    return torch.stack(rows, 1).view(-1, 2, 3)


def shifted(count: int, shift: float, generator: Generator) -> Float[Tensor, "B 2 3"]:
    """Affine maps to a window of side ``1 - shift`` in a random corner of each image."""
    signs_B2 = torch.randint(0, 2, (count, 2), generator=generator, device=generator.device) * 2 - 1
    theta_B23 = torch.eye(2, 3, device=generator.device).repeat(count, 1, 1) * (1 - shift)
    theta_B23[:, :, 2] = signs_B2 * shift
    return theta_B23


def warp(
    image_BCHW: Float[Tensor, "B C H W"], theta_B23: Float[Tensor, "B 2 3"]
) -> Float[Tensor, "B C H W"]:
    """What the affine maps show of the images, bilinear; meant for windows that are enlarged."""
    grid_BHW2 = functional.affine_grid(theta_B23, list(image_BCHW.shape), align_corners=False)
    return functional.grid_sample(
        image_BCHW, grid_BHW2, padding_mode="reflection", align_corners=False
    )


def three_augment(
    image_BCHW: Float[Tensor, "B C H W"], probability: float, draws: Draws
) -> Float[Tensor, "B C H W"]:
    """Makes an image grey, solarises it or blurs it, one of the three, with a probability."""
    draw_B111 = _each(draws)
    third = probability / 3
    image_BCHW = torch.where(draw_B111 < third, grey(image_BCHW)[:, None], image_BCHW)
    solar = (draw_B111 >= third) & (draw_B111 < 2 * third) & (image_BCHW > 0.5)
    image_BCHW = torch.where(solar, 1 - image_BCHW, image_BCHW)
    blurred = (draw_B111 >= 2 * third) & (draw_B111 < probability)
    return torch.where(blurred, blur(image_BCHW), image_BCHW)


def jitter(
    image_BCHW: Float[Tensor, "B C H W"], strength: float, draws: Draws
) -> Float[Tensor, "B C H W"]:
    """Changes brightness, contrast and saturation by up to ``strength`` of themselves."""
    bright_B111, contrast_B111, colour_B111 = (
        1 + strength * (2 * _each(draws) - 1) for _ in range(3)
    )
    image_BCHW = (image_BCHW * bright_B111).clamp(0, 1)
    grey_B1HW = grey(image_BCHW)[:, None]
    image_BCHW = torch.lerp(grey_B1HW.mean((1, 2, 3), keepdim=True), image_BCHW, contrast_B111)
    return torch.lerp(grey(image_BCHW)[:, None], image_BCHW, colour_B111).clamp(0, 1)


def erase(
    image_BCHW: Float[Tensor, "B C H W"],
    probability: float,
    draws: Draws,
    map_B1hw: Float[Tensor, "B 1 h w"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B 1 h w"] | None]:
    """Fills a box of 2 to 33 % of the area (Zhong et al. 2020) with the image's mean colour.

    Not with noise, as is usual: priors would spend tokens on it. Of a map the box becomes 0.
    """
    area_B111 = 0.02 + 0.31 * _each(draws)
    log_B111 = (2 * _each(draws) - 1) * math.log(1 / 0.3)
    high_B111 = (area_B111 * log_B111.exp()).sqrt().clamp(max=1)
    wide_B111 = (area_B111 * (-log_B111).exp()).sqrt().clamp(max=1)
    top_B111 = (1 - high_B111) * _each(draws)
    left_B111 = (1 - wide_B111) * _each(draws)
    chosen_B111 = _each(draws) < probability
    box = (top_B111, left_B111, high_B111, wide_B111)
    mean_BC11 = image_BCHW.mean((2, 3), keepdim=True)
    image_BCHW = torch.where(chosen_B111 & _inside(image_BCHW, *box), mean_BC11, image_BCHW)
    if map_B1hw is not None:
        map_B1hw = map_B1hw.masked_fill(chosen_B111 & _inside(map_B1hw, *box), 0)
    return image_BCHW, map_B1hw


def blur(image_BCHW: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Two box filters of 5 pixels: nearly a Gaussian of standard deviation 2."""
    for _ in range(2):
        image_BCHW = functional.avg_pool2d(image_BCHW, 5, 1, 2, count_include_pad=False)
    return image_BCHW


def _each(draws: Draws) -> Tensor:
    """A number in [0, 1) for each image, [B, 1, 1, 1]."""
    return next(draws)[:, None, None, None]


def _inside(
    like_BCHW: Tensor, top_B111: Tensor, left_B111: Tensor, high_B111: Tensor, wide_B111: Tensor
) -> Tensor:
    """Which pixels have their centre in a box, given in shares of the sides, [B, 1, H, W]."""
    height, width = like_BCHW.shape[2:]
    row_H1 = ((torch.arange(height, device=like_BCHW.device) + 0.5) / height)[:, None]
    column_W = (torch.arange(width, device=like_BCHW.device) + 0.5) / width
    rows = (row_H1 >= top_B111) & (row_H1 < top_B111 + high_B111)
    return rows & (column_W >= left_B111) & (column_W < left_B111 + wide_B111)
