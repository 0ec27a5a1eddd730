"""Mixed-resolution vision transformers: quadtree tokens where an image needs them.

``timm.create_model("quadformer_small_patch16_256", num_tokens=100)`` works after ``import
adaptive.quadformer``, and this package's configuration imports neither torch nor timm. Both hold
because names below are imported when they are first used, and because the models' names are
registered by :mod:`adaptive._plugin`: at once where timm is loaded, else as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive._lazy import lazy

if TYPE_CHECKING:
    from adaptive.quadformer.baselines import BASELINES
    from adaptive.quadformer.export import export_onnx
    from adaptive.quadformer.factory import create
    from adaptive.quadformer.latency import tokens_for
    from adaptive.quadformer.model import Quadformer
    from adaptive.quadformer.models import load_trained
    from adaptive.quadformer.settings import EvaluateConfig

__all__ = [
    "BASELINES",
    "EvaluateConfig",
    "Quadformer",
    "create",
    "export_onnx",
    "load_trained",
    "tokens_for",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "BASELINES": "baselines",
        "EvaluateConfig": "settings",
        "Quadformer": "model",
        "create": "factory",
        "export_onnx": "export",
        "load_trained": "models",
        "tokens_for": "latency",
    },
)
