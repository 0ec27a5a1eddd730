"""Our own network: where text is, and how large. Names are imported when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive._lazy import lazy
from adaptive.textscale.network.sizes import SIZES, NetSize

if TYPE_CHECKING:
    from adaptive.textscale.network.checkpoint import load_net, save_net
    from adaptive.textscale.network.detector import TextDetector
    from adaptive.textscale.network.export import export_onnx
    from adaptive.textscale.network.net import TextNet

__all__ = ["SIZES", "NetSize", "TextDetector", "TextNet", "export_onnx", "load_net", "save_net"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "TextDetector": "detector",
        "TextNet": "net",
        "export_onnx": "export",
        "load_net": "checkpoint",
        "save_net": "checkpoint",
    },
)
