"""Mixed-resolution vision transformers: quadtree tokens where an image needs them.

``timm.create_model("quadformer_small_patch16_256", num_tokens=100)`` works after ``import
adaptive.quadformer``, and this package's configuration imports neither torch nor timm. Both hold
because names below are imported when they are first used, and because the models' names are
registered by :mod:`adaptive._plugin`: at once where timm is loaded, else as soon as it is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptive.quadformer.baselines import BASELINES
    from adaptive.quadformer.export import export_onnx
    from adaptive.quadformer.factory import create
    from adaptive.quadformer.latency import tokens_for
    from adaptive.quadformer.model import Quadformer

__all__ = ["BASELINES", "Quadformer", "create", "export_onnx", "tokens_for"]

_HOMES = {
    "BASELINES": "baselines",
    "Quadformer": "model",
    "create": "factory",
    "export_onnx": "export",
    "tokens_for": "latency",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
