"""Scale-aware text detection: predict where text is and how large, then spend pixels there.

Names below are imported when they are first used, so that the package's configuration imports
neither torch nor OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive._lazy import lazy
from adaptive.core.registry import announce

if TYPE_CHECKING:
    from adaptive.textscale.adaptive_detector import AdaptiveDetector
    from adaptive.textscale.baselines import BASELINES
    from adaptive.textscale.detect.folder import detect_folder
    from adaptive.textscale.detector import as_detector, as_mapper
    from adaptive.textscale.network import TextDetector, export_onnx, load_net
    from adaptive.textscale.onnx_detector import OnnxDetector
    from adaptive.textscale.recall import RecallCurve
    from adaptive.textscale.settings import AdaptConfig
    from adaptive.textscale.words import Detections, TextMaps, Words

__all__ = [
    "BASELINES",
    "AdaptConfig",
    "AdaptiveDetector",
    "Detections",
    "OnnxDetector",
    "RecallCurve",
    "TextDetector",
    "TextMaps",
    "Words",
    "as_detector",
    "as_mapper",
    "detect_folder",
    "export_onnx",
    "load_net",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "BASELINES": "baselines",
        "AdaptConfig": "settings",
        "AdaptiveDetector": "adaptive_detector",
        "Detections": "words",
        "OnnxDetector": "onnx_detector",
        "RecallCurve": "recall",
        "TextDetector": "network",
        "TextMaps": "words",
        "Words": "words",
        "as_detector": "detector",
        "as_mapper": "detector",
        "detect_folder": "detect.folder",
        "export_onnx": "network",
        "load_net": "network",
    },
)

# Quadformer may ask for text saliency by name; the network behind it is heavy to import.
announce("prior", "text", "adaptive.textscale.text_prior")
