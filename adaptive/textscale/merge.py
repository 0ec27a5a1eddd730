"""One list of words an image from the boxes of both passes.

Shapes: I images, R regions of all of them, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from adaptive.textscale.allocate import KEEP
from adaptive.textscale.first_look import FirstLook
from adaptive.textscale.nms import suppress
from adaptive.textscale.plan import Plan, Scene
from adaptive.textscale.words import Detections

# Of boxes of the same word, that of the chip made for it is best, and one that happened to lie in
# another's padding worst. Scores lie in 0 to 1, so that steps of one never mix.
_OWN, _KEPT, _STRAY = 2.0, 1.0, 0.0


def merge(
    looks: Sequence[FirstLook],
    found_region: Sequence[ndarray],
    fresh: Detections,
    chip_N: Int[ndarray, " N"],
    plan: Plan,
    scene: Scene,
    iou: float,
) -> list[Detections]:
    """Boxes that pass 1 keeps, and all of pass 2, each word once.

    Args:
        looks: pass 1 of each image.
        found_region: region of each of its boxes; -1 where there is none, which are kept.
        fresh: boxes of pass 2 in pixels of their images.
        chip_N: the chip that each comes from.
        plan: what became of each region.
        scene: regions.
        iou: two boxes that share more are one word.
    """
    image_N = plan.chips.image_N[chip_N]
    region_N = plan.region_N[chip_N]
    centre_N2 = fresh.quad_N42.mean(1)
    own_N = region_N < 0  # whole images own all that is in them
    rows = np.flatnonzero(~own_N)
    box_N4 = scene.tight_R4[region_N[rows]]
    own_N[rows] = ((centre_N2[rows] >= box_N4[:, :2]) & (centre_N2[rows] <= box_N4[:, 2:])).all(1)
    fresh_rank_N = fresh.score_N + np.where(own_N, _OWN, _STRAY)
    merged = []
    for i, (look, mine) in enumerate(zip(looks, found_region, strict=True)):
        if plan.zoom_I[i]:
            kept = np.zeros(len(mine), bool)
        elif plan.allocation is None:
            kept = np.ones(len(mine), bool)
        else:
            kept = (mine < 0) | (plan.choice_R[mine] == KEEP)
        here = image_N == i
        quad_N42 = np.concatenate([look.found.quad_N42[kept], fresh.quad_N42[here]])
        score_N = np.concatenate([look.found.score_N[kept], fresh.score_N[here]])
        rank_N = np.concatenate([look.found.score_N[kept] + _KEPT, fresh_rank_N[here]])
        stays = suppress(quad_N42, rank_N.astype(float), iou=iou)
        merged.append(Detections(quad_N42[stays], score_N[stays]))
    return merged
