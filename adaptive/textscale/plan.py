"""From options to canvases that keep the budget: allocate, pack, look at the real pixels, repeat.

Shapes: I images, R regions of all of them, N chips, Z zooms of a whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from adaptive.core import Allocation
from adaptive.textscale.allocate import Menu, cheapest, within
from adaptive.textscale.canvas import Chips
from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.packing import Packing, pack
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.settings import AdaptConfig

_TRIES = 3
_FULL = 0.9  # a canvas that fills this share of the room is not worth another try
_STEPS = 24  # zooms of the whole image that are tried against its chips
_BETTER = 0.9  # of the misses with chips, at most which the whole image must be expected to have


@dataclass(frozen=True)
class Scene:
    """What is known of the images after pass 1.

    Attributes:
        menu: options of all regions.
        image_R: image of each region.
        tight_R4: box of each region, in pixels of its image.
        box_R4: what a chip of the region shows, with padding, in whole pixels.
        scale_R, spread_R: height of the text in its image, and the uncertainty of its log.
        size_I2: width and height of the images.
    """

    menu: Menu
    image_R: Int[ndarray, " R"]
    tight_R4: Float[ndarray, "R 4"]
    box_R4: Int[ndarray, "R 4"]
    scale_R: Float[ndarray, " R"]
    spread_R: Float[ndarray, " R"]
    size_I2: Int[ndarray, "I 2"]


@dataclass(frozen=True)
class Limits:
    """What both passes together may spend.

    Attributes:
        pixels, latency: the limits, inf where there is none; latency in seconds.
        spent_pixels, spent_seconds: of pass 1 and all that is done beside the networks.
        model: seconds of pass 2; None where latency is not limited.
    """

    pixels: float = math.inf
    latency: float = math.inf
    spent_pixels: float = 0.0
    spent_seconds: float = 0.0
    model: LatencyModel | None = None

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return math.isfinite(self.pixels) or math.isfinite(self.latency)

    def room(self, calls: int = 1) -> float:
        """Pixels that are left for pass 2 if it makes so many calls."""
        room = self.pixels - self.spent_pixels
        if self.model is not None:
            left = self.latency - self.spent_seconds - calls * self.model.call
            room = min(room, left / max(self.model.pixel, 1e-15))
        return max(room, 0.0)

    def up_to(self, pixels: float) -> dict[str, float]:
        """The limits for the core, where pass 2 may have so many pixels."""
        limits = {}
        if math.isfinite(self.pixels):
            limits["pixels"] = self.spent_pixels + pixels
        if self.model is not None:
            limits["latency"] = self.spent_seconds + self.model(pixels)
        return limits


@dataclass(frozen=True)
class Plan:
    """What pass 2 will look at.

    Attributes:
        allocation: the core's answer; None where pass 1 saw nothing.
        choice_R: option of each region.
        zoom_I: zoom of images that are looked at as a whole in place of their regions, else 0.
        chips: what is cut out.
        region_N: region of each chip, -1 for whole images.
        packing: where it goes.
    """

    allocation: Allocation | None
    choice_R: Int[ndarray, " R"]
    zoom_I: Float[ndarray, " I"]
    chips: Chips
    region_N: Int[ndarray, " N"]
    packing: Packing


def make_plan(scene: Scene, limits: Limits, config: AdaptConfig, recall: RecallCurve) -> Plan:
    """Chooses zooms and packs the chips, such that the canvases keep the limits.

    The allocation knows the pixels of chips and what shelves leave empty on average; how well they
    pack shows afterwards. Where they do not fit, less is asked for; where much is left, more. An
    image whose chips would miss more than the whole of it at as many pixels is looked at as a
    whole, so that dense pages are not worse off than at a single scale.
    """
    if not len(scene.image_R):
        return _draft(scene, None, config, np.zeros(len(scene.size_I2)))
    if not limits.limited:
        allocation = cheapest(scene.menu, config.tolerance, limits.spent_pixels)
        draft = _draft(scene, allocation, config, np.zeros(len(scene.size_I2)))
        return _with_whole_images(scene, draft, config, recall, 0.0)
    spent = {"pixels": limits.spent_pixels, "latency": limits.spent_seconds}
    if limits.model is not None:
        spent["latency"] += limits.model.call
    best: Plan | None = None
    target = limits.room()
    for tries in range(1, 64):
        allocation = within(scene.menu, limits.up_to(target), spent, limits.model)
        draft = _draft(scene, allocation, config, np.zeros(len(scene.size_I2)))
        used, room = draft.packing.pixels, limits.room(len(draft.packing.size_M2))
        if used <= room:
            if best is None or allocation.loss < _loss(best):
                best = draft
            satisfied = (allocation.choice == scene.menu.loss_RK.argmin(1)).all()
            if satisfied or used >= _FULL * room or tries >= _TRIES:
                break
            target *= min(1.5, 0.98 * room / max(used, 1))
        elif tries >= _TRIES and best is not None:
            break
        else:
            target *= 0.5 if tries >= _TRIES else 0.98 * room / used
    assert best is not None  # halved so often, nothing is left to pack
    left = limits.room(len(best.packing.size_M2)) - best.packing.pixels
    whole = _with_whole_images(scene, best, config, recall, left)
    fits = whole.packing.pixels <= limits.room(len(whole.packing.size_M2))
    return whole if fits else best


def _loss(plan: Plan) -> float:
    return math.inf if plan.allocation is None else plan.allocation.loss


def _draft(
    scene: Scene, allocation: Allocation | None, config: AdaptConfig, zoom_I: ndarray
) -> Plan:
    """Chips of an allocation, or of whole images where ``zoom_I`` is not 0, packed."""
    choice_R = np.zeros(0, int) if allocation is None else allocation.choice
    rows = np.arange(len(choice_R))
    zoomed_R = scene.menu.zoom_RK[rows, choice_R] > 0
    zoomed_R &= zoom_I[scene.image_R] == 0
    region = np.flatnonzero(zoomed_R)
    whole = np.flatnonzero(zoom_I)
    full = np.concatenate([np.zeros_like(scene.size_I2), scene.size_I2], 1)[whole]
    size_whole = np.maximum(1, np.rint(scene.size_I2[whole] * zoom_I[whole, None]).astype(int))
    chips = Chips(
        np.concatenate([scene.image_R[region], whole]),
        np.concatenate([scene.box_R4[region], full]),
        np.concatenate([scene.menu.size_RK2[region, choice_R[region]], size_whole]),
    )
    packing = pack(
        chips.size_N2,
        stride=config.stride,
        gutter=config.gutter,
        max_side=config.max_side,
        max_pixels=config.max_pixels,
    )
    region_N = np.concatenate([region, np.full(len(whole), -1)])
    return Plan(allocation, choice_R, zoom_I, chips, region_N, packing)


def _with_whole_images(
    scene: Scene, draft: Plan, config: AdaptConfig, recall: RecallCurve, left: float
) -> Plan:
    """The plan with images as a whole where that misses less at no more pixels than their chips
    and an equal part of what is ``left``."""
    share_N = draft.chips.size_N2.prod(1) / max(1, int(draft.chips.size_N2.prod(1).sum()))
    room_I = np.bincount(
        draft.chips.image_N, share_N * draft.packing.pixels, len(scene.size_I2)
    ) + left / len(scene.size_I2)
    rows = np.arange(len(draft.choice_R))
    loss_R = scene.menu.loss_RK[rows, draft.choice_R]
    zoom_I = np.zeros(len(scene.size_I2))
    for i in np.flatnonzero(room_I > 0):
        mine_R = scene.image_R == i
        zoom_Z = _zooms(scene.size_I2[i], room_I[i], config)
        height_ZR = zoom_Z[:, None] * scene.scale_R[mine_R]
        seen_ZR = recall.expected(height_ZR, scene.spread_R[mine_R])
        misses_Z = (scene.menu.words_R[mine_R] * (1 - seen_ZR)).sum(1)
        if len(zoom_Z) and misses_Z.min() < _BETTER * loss_R[mine_R].sum():
            zoom_I[i] = zoom_Z[misses_Z.argmin()]
    if not zoom_I.any():
        return draft
    return _draft(scene, draft.allocation, config, zoom_I)


def _zooms(size_2: ndarray, room: float, config: AdaptConfig) -> ndarray:
    """Zooms at which the whole image has at most ``room`` pixels, padding included, [Z]."""
    largest = config.max_side // config.stride * config.stride
    zoom_Z = np.geomspace(1 / 8, 1, _STEPS) * min(config.max_zoom, largest / int(size_2.max()))
    side_Z2 = np.rint(zoom_Z[:, None] * size_2)
    padded_Z2 = np.ceil(np.maximum(side_Z2, 1) / config.stride) * config.stride
    return zoom_Z[padded_Z2.prod(1) <= room]
