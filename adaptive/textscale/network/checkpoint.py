"""Weights of a network in a safetensors file that says what network they are of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.textscale.network.files import weights_file
from adaptive.textscale.network.net import TextNet
from adaptive.textscale.network.sizes import NetSize


def save_net(net: TextNet, path: str | Path, *, half: bool = False) -> None:
    """Writes a network's weights in one step.

    Args:
        net: the network.
        path: of the file.
        half: store floats in half precision, in half of the bytes.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, value in net.weights().items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.half() if half and value.is_floating_point() else value
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"size": json.dumps(asdict(net.size))})


def load_net(path: str | Path, setting: str = "net") -> TextNet:
    """A network in evaluation mode, on the CPU, in single precision.

    Args:
        path: a file that :func:`save_net` wrote, or the directory of a ``textscale_train`` run,
            whose averaged weights count, or ``zoo:NAME``.
        setting: what names it, for messages.

    Raises:
        UserError: there is no such file or model of the zoo, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    file = weights_file(path, setting)
    try:
        with safe_open(file, "pt") as opened:
            size = (opened.metadata() or {}).get("size")
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{setting}={path}: the weights cannot be read: {error}") from None
    if size is None:
        raise UserError(
            f"{setting}={path}: the file does not say what network it is of: name a run of "
            "textscale_train, or a file in its artifacts/train"
        )
    net = TextNet(NetSize(**json.loads(size)))
    try:
        net.load_state_dict(
            {k: v.float() if v.dtype == torch.half else v for k, v in state.items()}
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{setting}={path}: the weights do not fit their network: {reason}"
        ) from None
    return net.eval()
