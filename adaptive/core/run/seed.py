"""Seeds: one number for the run, one derived from it for each stage."""

from __future__ import annotations

import hashlib
import random


def stage_seed(seed: int, stage: str) -> int:
    """A 32-bit seed for ``stage``, so that a resumed stage draws what it would have drawn.

    Seeding once at the start would make a stage's random numbers depend on which of the earlier
    stages were skipped.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:4], "big")


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (CPU and every GPU)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
