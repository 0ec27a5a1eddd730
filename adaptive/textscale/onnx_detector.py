"""Text detectors in ONNX files with one probability map: PP-OCR's, and others with a DB head.

ONNX Runtime runs them where it is installed (the extra ``onnx``), else OpenCV's DNN module does.

Shapes: H x W pixels of an image, h x w of the network's input, whose sides are multiples of 32.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from adaptive.core.errors import UserError
from adaptive.textscale.canvas import padded
from adaptive.textscale.postprocess import boxes_of_map
from adaptive.textscale.words import CANONICAL, Detections, TextMaps, short_sides

STRIDE = 32
# Mean and spread of ImageNet's channels, which PP-OCR normalises with. It does so on BGR images
# with the values of RGB, and its weights are trained for that.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32) * 255

Run = Callable[[Float32[ndarray, "1 3 h w"]], list[ndarray]]


class OnnxDetector:
    """A detector, and a prior, from an ONNX file.

    As a prior it is weaker than a network with a scale head: the scale is read off the height of
    each component of the map, so words that touch count as one large one.

    Args:
        path: the ONNX file: one input [batch, 3, height, width], one output [batch, 1, height,
            width] of probabilities.
        threshold, box_threshold, unclip_ratio, min_side: see
            :func:`~adaptive.textscale.postprocess.boxes_of_map`.
        threads: of the CPU; 0 lets the runtime choose.
        backend: "onnxruntime" or "opencv"; "auto" takes the first that is installed.
        device: "cpu", or a CUDA device, which an ONNX Runtime built for it uses.
        setting: what names the file, for messages.

    Raises:
        UserError: no such file, none that can be read, or one with other outputs.
    """

    pass1_side = 736  # PP-OCR's own size; on smaller copies it overlooks most of a photograph

    multiple = STRIDE

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threshold: float = 0.3,
        box_threshold: float = 0.5,
        unclip_ratio: float = 1.5,
        min_side: float = 3.0,
        threads: int = 0,
        backend: str = "auto",
        device: str = "cpu",
        setting: str = "detector.path",
    ):
        self.path, self.named = Path(path), f"{setting}={path}"
        self.settings: dict[str, Any] = {
            "threshold": threshold,
            "box_threshold": box_threshold,
            "unclip_ratio": unclip_ratio,
            "min_side": min_side,
        }
        if not self.path.is_file():
            raise UserError(f"{self.named} is not a file: give the path of an ONNX file")
        if backend == "auto":
            installed = importlib.util.find_spec("onnxruntime") is not None
            backend = "onnxruntime" if installed else "opencv"
        if backend not in _BACKENDS:
            raise UserError(
                f"detector backend {backend!r}: choose one of auto, {', '.join(_BACKENDS)}"
            )
        self.run: Run = _BACKENDS[backend](self.path, self.named, threads, device)
        self._check()

    def __call__(self, image_HW3: UInt8[ndarray, "H W 3"]) -> Detections:
        """Words in an image, in its pixels."""
        return self.boxes(self.maps(image_HW3, scales=False))

    def maps(self, image_HW3: UInt8[ndarray, "H W 3"], *, scales: bool = True) -> TextMaps:
        """Probability at stride 1, and the scale of each component that is text.

        Args:
            image_HW3: RGB image; padded to multiples of 32 at the right and below.
            scales: whether scales are wanted; else they are all canonical.
        """
        H, W = image_HW3.shape[:2]
        image_hw3 = padded(image_HW3, STRIDE)
        bgr_hw3 = (image_hw3[:, :, ::-1].astype(np.float32) - _MEAN) / _SPREAD
        (map_11hw,) = self.run(np.ascontiguousarray(bgr_hw3.transpose(2, 0, 1)[None]))
        probability_HW = np.ascontiguousarray(map_11hw[0, 0, :H, :W], np.float32)
        log_scale_HW = np.zeros_like(probability_HW)
        if scales:
            self._fill_scales(probability_HW, log_scale_HW)
        return TextMaps(probability_HW, log_scale_HW, np.zeros_like(probability_HW), stride=1)

    def boxes(self, maps: TextMaps) -> Detections:
        """Boxes of the words that the maps show."""
        return boxes_of_map(maps.probability_hw, stride=maps.stride, **self.settings)

    def _fill_scales(self, probability_HW: ndarray, log_scale_HW: ndarray) -> None:
        """Writes ln(height / 32) of each faint or clear component over its box."""
        found = boxes_of_map(
            probability_HW,
            threshold=self.settings["threshold"] / 2,
            box_threshold=0.0,
            unclip_ratio=self.settings["unclip_ratio"],
            min_side=0.0,
            stride=1,
        )
        height_N = np.maximum(short_sides(found.quad_N42), 1)
        for i in np.argsort(-height_N):  # small words are not painted over by large ones
            quad_42 = np.rint(found.quad_N42[i]).astype(np.int32)
            cv2.fillConvexPoly(log_scale_HW, quad_42, float(np.log(height_N[i] / CANONICAL)))

    def _check(self) -> None:
        """Runs the network once, as only that shows what a file with free sizes gives out."""
        try:
            outputs = self.run(np.zeros((1, 3, 2 * STRIDE, 2 * STRIDE), np.float32))
        except Exception as error:  # each runtime has errors of its own
            raise UserError(
                f"{self.named} does not take an image of [1, 3, 64, 64]: give a text "
                f"detector with free height and width ({_first_line(error)})"
            ) from None
        shapes = [list(output.shape) for output in outputs]
        if shapes != [[1, 1, 2 * STRIDE, 2 * STRIDE]]:
            raise UserError(
                f"{self.named} gives {', '.join(map(str, shapes))} for an image of "
                "64 x 64: expected is one probability map [1, 1, 64, 64], as PP-OCR's detectors "
                "have"
            )


def _onnxruntime(path: Path, named: str, threads: int, device: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are about its own optimisations
    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        providers = ["CUDAExecutionProvider", *providers]
    there = set(onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=[name for name in providers if name in there]
        )
    except Exception as error:
        raise UserError(
            f"{named} is not an ONNX network that can be run ({_first_line(error)})"
        ) from None
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise UserError(f"{named} has {len(inputs)} inputs: expected is one, the image")
    return lambda image: [np.asarray(o) for o in session.run(None, {inputs[0].name: image})]


def _opencv(path: Path, named: str, threads: int, device: str) -> Run:
    try:
        network = cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise UserError(
            f"{named} is not an ONNX network that OpenCV can run "
            f"({_first_line(error)}): install the extra onnx"
        ) from None
    names = network.getUnconnectedOutLayersNames()
    if threads:
        cv2.setNumThreads(threads)

    def run(image_13hw: Float32[ndarray, "1 3 h w"]) -> list[ndarray]:
        network.setInput(image_13hw)
        return list(network.forward(names))

    return run


_BACKENDS: dict[str, Callable[[Path, str, int, str], Run]] = {
    "onnxruntime": _onnxruntime,
    "opencv": _opencv,
}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
