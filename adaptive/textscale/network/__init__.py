"""Our own network: where text is, and how large. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adaptive.textscale.network.sizes import SIZES, NetSize

if TYPE_CHECKING:
    from adaptive.textscale.network.checkpoint import load_net, save_net
    from adaptive.textscale.network.detector import TextDetector
    from adaptive.textscale.network.export import export_onnx
    from adaptive.textscale.network.net import TextNet

__all__ = ["SIZES", "NetSize", "TextDetector", "TextNet", "export_onnx", "load_net", "save_net"]

_HOMES = {
    "TextDetector": "detector",
    "TextNet": "net",
    "export_onnx": "export",
    "load_net": "checkpoint",
    "save_net": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
