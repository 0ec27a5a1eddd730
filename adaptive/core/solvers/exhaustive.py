"""Every choice there is: the yardstick of the tests."""

from __future__ import annotations

import math

import numpy as np

from adaptive.core.errors import UserError
from adaptive.core.solvers.dual import ascend
from adaptive.core.solvers.program import SOLVERS, Answer, Program, Start

_MOST = 2_000_000


@SOLVERS.register("exhaustive")
def exhaustive(program: Program, *, gap: float, deadline: float, start: Start) -> Answer | None:
    """Tries all choices of the undominated options, two million at most."""
    sizes = np.isfinite(program.loss_GK).sum(1).tolist()
    if math.prod(sizes) > _MOST:
        raise UserError(
            f"solver=exhaustive would try {math.prod(sizes):.3g} choices, more than {_MOST:,}: "
            "choose solver=mip"
        )
    loss_N, use_RN = np.zeros(1), np.zeros((len(program.room_R), 1))
    for g, size in enumerate(sizes):
        loss_N = (loss_N[:, None] + program.loss_GK[g, :size]).ravel()
        use_RN = (use_RN[:, :, None] + program.use_RGK[:, g, None, :size]).reshape(
            len(use_RN), loss_N.size
        )
    loss_N[(use_RN > program.room_R[:, None]).any(0)] = np.inf
    best = int(loss_N.argmin())
    if not np.isfinite(loss_N[best]):
        return None
    choice_G = np.array(np.unravel_index(best, sizes))
    dual = ascend(program, start.multipliers_R, deadline)
    return Answer(choice_G, program.loss(choice_G), dual.multipliers_R)
