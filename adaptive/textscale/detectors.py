"""Detectors by name: what ``detector=NAME`` chooses. Free of torch, which builders import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

SAME = "same"


@dataclass
class DetectorConfig:
    """A detector and how boxes are read off its maps."""

    kind: str = "network"  # name in DETECTORS; of a prior also same: the detector itself
    # of the ONNX file, or of a network: file, directory of a textscale_train run, or zoo:NAME
    path: str = ""
    threshold: float = 0.5  # probability above which a cell is text
    box_threshold: float = 0.5  # least mean probability in a word's core
    # onnx: growth of a core by area x this / perimeter; network: factor of the growth by its scale
    grow: float = 1.0
    min_side: float = 3.0  # least short side of a box in pixels of the input
    threads: int = 0  # of the CPU; 0: as the runtime likes
    recall: str | None = None  # recall_curve.json of a textscale_eval run; null: a rough curve

    def validate(self, prefix: str = "detector") -> None:
        """Raises UserError for values that mean nothing."""
        if prefix == "prior" and self.kind == SAME:
            return
        DETECTORS[self.kind]
        if not self.path:
            raise UserError(
                f"{prefix}.path is empty: name an ONNX file ({prefix}=onnx) or a run of "
                f"textscale_train ({prefix}=network)"
            )
        for name in ("threshold", "box_threshold"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{prefix}.{name}={getattr(self, name)} must lie in 0 to 1, 1 excluded"
                )


DETECTORS: Registry[Callable[[DetectorConfig, str, str], Any]] = Registry("detector")
"""Name to what builds a detector, with maps and boxes, of its settings, a torch device and the
setting that names its file."""

CHOICES = {
    "network": DetectorConfig(),
    "onnx": DetectorConfig("onnx", threshold=0.3, grow=1.5),  # as PP-OCR has it
}
"""What ``detector=NAME`` chooses."""

PRIORS = {SAME: DetectorConfig(SAME), **CHOICES}
"""What ``prior=NAME`` chooses."""


def build_detector(config: DetectorConfig, device: str, setting: str = "detector.path") -> Any:
    """The detector that settings describe.

    Args:
        config: the settings.
        device: of torch.
        setting: what names its file, for messages.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    return DETECTORS[config.kind](config, device, setting)


@DETECTORS.register("onnx")
def _onnx(config: DetectorConfig, device: str, setting: str) -> Any:
    from adaptive.textscale.onnx_detector import OnnxDetector

    return OnnxDetector(
        config.path,
        threshold=config.threshold,
        box_threshold=config.box_threshold,
        unclip_ratio=config.grow,
        min_side=config.min_side,
        threads=config.threads,
        device=device,
        setting=setting,
    )


@DETECTORS.register("network")
def _network(config: DetectorConfig, device: str, setting: str) -> Any:
    import torch

    from adaptive.textscale.network import TextDetector, load_net

    if config.threads and device == "cpu":
        torch.set_num_threads(config.threads)
    return TextDetector(
        load_net(config.path, setting),
        threshold=config.threshold,
        box_threshold=config.box_threshold,
        grow=config.grow,
        min_side=config.min_side,
        device=device,
    )
