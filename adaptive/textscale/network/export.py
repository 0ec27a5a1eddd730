"""The network as an ONNX file, for any number of images of any size.

Shapes: B images, H x W pixels, h x w cells of 4 x 4 pixels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.textscale.network.net import BORDER, SCALE, TEXT, TextNet

IMAGE = "image"
OUTPUTS = ("probability", "border", "log_scale")


def export_onnx(net: TextNet, path: str | Path) -> Path:
    """Writes a network for ONNX Runtime and other engines; one that spends tokens with all of them.

    The input ``image`` is float [B, 3, H, W], RGB in [0, 1], H and W multiples of the network's
    ``multiple``, 32 of a convolutional one; the outputs
    ``probability``, ``border`` and ``log_scale`` are [B, H/4, W/4], see
    :class:`~adaptive.textscale.words.TextMaps`.

    Args:
        net: on the CPU, in single precision.
        path: of the file, usually ``.onnx``; replaced in one step.

    Returns:
        The path.

    Raises:
        UserError: the extra ``onnx`` is not installed.
    """
    path, training = Path(path), net.training
    sides = {
        name: net.multiple * torch.export.Dim(f"{name}_in_{net.multiple}", min=2, max=4096)
        for name in ("height", "width")
    }
    shape = {0: torch.export.Dim("batch", min=1), 2: sides["height"], 3: sides["width"]}
    try:
        # Two images, not square: of one, the exporter would conclude that there is always one.
        program = torch.onnx.export(
            _Maps(net).eval(),
            (torch.zeros(2, 3, 3 * net.multiple, 4 * net.multiple),),
            dynamo=True,
            verbose=False,
            input_names=[IMAGE],
            output_names=list(OUTPUTS),
            dynamic_shapes=(shape,),
        )
    except ImportError as error:
        raise UserError(
            f"{path}: {error}; install the extra: pip install 'adaptive-compute[onnx]'"
        ) from None
    finally:
        net.train(training)
    assert program is not None  # with dynamo there always is one
    with atomic_path(path) as temporary:
        program.save(temporary)
    return path


class _Maps(nn.Module):
    """A network whose outputs are what their names say."""

    def __init__(self, net: TextNet):
        super().__init__()
        self.net = net

    def forward(
        self, image_B3HW: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B h w"], Float[Tensor, "B h w"], Float[Tensor, "B h w"]]:
        output_B3hw = self.net(image_B3HW, share=1.0)
        text_Bhw, border_Bhw = output_B3hw[:, TEXT].sigmoid(), output_B3hw[:, BORDER].sigmoid()
        return text_Bhw, border_Bhw, output_B3hw[:, SCALE]
