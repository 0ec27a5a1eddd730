"""Scale-aware text detection: predict where text is and how large, then spend pixels there.

Names below are imported when they are first used, so that the package's configuration imports
neither torch nor OpenCV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adaptive.core.registry import announce

if TYPE_CHECKING:
    from adaptive.textscale.adaptive_detector import AdaptiveDetector
    from adaptive.textscale.detect.folder import detect_folder
    from adaptive.textscale.onnx_detector import OnnxDetector
    from adaptive.textscale.recall import RecallCurve
    from adaptive.textscale.words import Detections, TextMaps, Words

__all__ = [
    "AdaptiveDetector",
    "Detections",
    "OnnxDetector",
    "RecallCurve",
    "TextMaps",
    "Words",
    "detect_folder",
]

_HOMES = {
    "AdaptiveDetector": "adaptive_detector",
    "Detections": "words",
    "OnnxDetector": "onnx_detector",
    "RecallCurve": "recall",
    "TextMaps": "words",
    "Words": "words",
    "detect_folder": "detect.folder",
}

# Quadformer may ask for text saliency by name; the network behind it is heavy to import.
announce("prior", "text", "adaptive.textscale.text_prior")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
