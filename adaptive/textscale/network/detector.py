"""A network as a detector: images in, maps and boxes out.

Shapes: B images, H x W pixels, h x w cells of 4 x 4 pixels, 3 channels of colour or of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from adaptive.textscale.canvas import padded
from adaptive.textscale.cores import boxes_by_scale
from adaptive.textscale.network.net import BORDER, MULTIPLE, SCALE, STRIDE, TEXT, TextNet
from adaptive.textscale.words import Detections, TextMaps


class TextDetector:
    """Finds words in images of any size.

    >>> detector = TextDetector(load_net("runs/textscale"))
    >>> detector(image_HW3).quad_N42

    Args:
        net: the network; it is put on the device and into evaluation mode.
        threshold: probability above which a cell belongs to the core of a word.
        box_threshold: least mean probability in a word's core.
        grow: factor of the distance by which cores are grown to words, see
            :func:`~adaptive.textscale.cores.boxes_by_scale`.
        min_side: least short side of a box in pixels.
        device: where to compute.
        half: half precision; None: on a GPU.
        compile: compile the network, once for each size of image.
    """

    def __init__(
        self,
        net: TextNet,
        *,
        threshold: float = 0.5,
        box_threshold: float = 0.5,
        grow: float = 1.0,
        min_side: float = 3.0,
        device: str = "cpu",
        half: bool | None = None,
        compile: bool = False,
    ):
        self.boxing = {
            "threshold": threshold,
            "box_threshold": box_threshold,
            "grow": grow,
            "min_side": min_side,
        }
        on_gpu = device.startswith("cuda")
        self.device, self.half = device, on_gpu if half is None else half
        # Channels last is what convolutions of the CPU and of a GPU's half precision work in.
        self.net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore
        self.multiple = net.multiple
        self.forward: Any = torch.compile(self.net, dynamic=False) if compile else self.net

    def __call__(self, image_HW3: UInt8[ndarray, "H W 3"]) -> Detections:
        """Words of an image, in its pixels."""
        return self.boxes(self.maps(image_HW3))

    def maps(self, image_HW3: UInt8[ndarray, "H W 3"]) -> TextMaps:
        """What the network says of an image; cells of an incomplete last row or column count."""
        return self.maps_of([image_HW3])[0]

    def boxes(self, maps: TextMaps) -> Detections:
        """Words that maps show, in pixels of the network's input."""
        return boxes_by_scale(maps, **self.boxing)

    def maps_of(self, images: Sequence[UInt8[ndarray, "_ _ 3"]]) -> list[TextMaps]:
        """Maps of several images; those of one size after padding go through together.

        Args:
            images: RGB, of any sizes.
        """
        found: dict[int, TextMaps] = {}
        groups: dict[tuple[int, int], list[int]] = {}
        for number, image_HW3 in enumerate(images):
            height, width = image_HW3.shape[:2]
            size = padded_size(height, width, self.multiple)
            groups.setdefault(size, []).append(number)
        for numbers in groups.values():
            image_BHW3 = np.stack([padded(images[n], self.multiple) for n in numbers])
            output_B3hw = self._forward(torch.from_numpy(image_BHW3)).cpu().numpy()
            for number, output_3hw in zip(numbers, output_B3hw, strict=True):
                found[number] = _cropped(output_3hw, *images[number].shape[:2])
        return [found[number] for number in range(len(images))]

    @torch.inference_mode()
    def _forward(self, image_BHW3: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 h w"]:
        """Probability of text, probability of an outline and log-scale."""
        # Pixels that lie in channels last already are only looked at in another order.
        image_B3HW = image_BHW3.to(self.device).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(self.device.split(":")[0], torch.half, enabled=self.half):
            output_B3hw = self.forward(image_B3HW)
        output_B3hw = output_B3hw.float()
        output_B3hw[:, [TEXT, BORDER]] = output_B3hw[:, [TEXT, BORDER]].sigmoid()
        return output_B3hw


def padded_size(height: int, width: int, multiple: int = MULTIPLE) -> tuple[int, int]:
    """The least sides that a network takes, in pixels, and that hold an image of these."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def _cropped(output_3hw: ndarray, height: int, width: int) -> TextMaps:
    """The cells that an image of so many pixels has a part in."""
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    parts = (
        np.ascontiguousarray(output_3hw[channel, :rows, :columns])
        for channel in (TEXT, SCALE, BORDER)
    )
    return TextMaps(*parts, stride=STRIDE)
