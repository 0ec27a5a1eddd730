"""Several tasks' frontiers in one run: what each keeps of its quality at half of its cost."""

from __future__ import annotations

from adaptive.core.frontiers.config import FrontiersConfig, PartConfig, ReferenceConfig
from adaptive.core.frontiers.curve import Curve, Half, Point

__all__ = ["Curve", "FrontiersConfig", "Half", "PartConfig", "Point", "ReferenceConfig"]
