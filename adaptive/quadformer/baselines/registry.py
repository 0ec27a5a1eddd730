"""Names of baselines."""

from __future__ import annotations

from adaptive.core.registry import Registry
from adaptive.quadformer.wrapper import VitWrapper

BASELINES: Registry[type[VitWrapper]] = Registry("baseline")
