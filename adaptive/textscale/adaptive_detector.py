"""Two passes: text is found and sized on a small copy, then looked at where that pays.

After Richardson et al. 2020 (arXiv:1907.12122): a prior from a small copy, a compact canvas at
canonical scale, the same network again. The allocation under a budget, zooms other than the
canonical one, and the constants are ours.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from adaptive.core import Allocation, UserError, parse_quantity
from adaptive.textscale.allocate import KEEP, boxes_by_region, menu_of
from adaptive.textscale.canvas import compose, padded, resized, restore
from adaptive.textscale.detector import as_detector, as_mapper
from adaptive.textscale.latency import LatencyModel
from adaptive.textscale.nms import suppress
from adaptive.textscale.plan import Limits, Plan, Scene, make_plan
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.regions import Regions, find_regions
from adaptive.textscale.settings import AdaptConfig, budget_of
from adaptive.textscale.words import Detections, TextMaps

# Seconds an image that a latency budget sets aside for all but the networks.
_OVERHEAD = 5e-3
