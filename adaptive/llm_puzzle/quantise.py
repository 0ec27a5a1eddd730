"""Weights in fewer bits, by rounding to nearest: what a format costs in quality.

Matrices are rounded to the values that the format can hold and kept in the model's own dtype (fake
quantisation), so that scores and evaluations see the format's error. Norms and biases stay as they
are. Nothing is calibrated: a server that quantises with calibration does no worse.

Shapes: O outputs and I inputs of a matrix, S groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from adaptive.core.registry import Registry
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM

FORMATS: Registry[Callable[[torch.Tensor], torch.Tensor]] = Registry("weight format")

GROUP = 128
"""Inputs that share a scale in int4, as in GPTQ's and AWQ's published checkpoints."""


@FORMATS.register("fp8")
def fp8(weight_OI: torch.Tensor) -> torch.Tensor:
    """float8 e4m3 with a scale for each output."""
    dtype = torch.float8_e4m3fn
    scale_O1 = _scale(weight_OI, torch.finfo(dtype).max)
    return ((weight_OI.float() / scale_O1).to(dtype).float() * scale_O1).to(weight_OI.dtype)


@FORMATS.register("int4")
def int4(weight_OI: torch.Tensor) -> torch.Tensor:
    """Symmetric 4-bit integers, -7 to 7, with a scale for each output and 128 inputs (for each
    output where the inputs are no multiple of 128)."""
    width = weight_OI.shape[1]
    group = GROUP if width % GROUP == 0 else width
    weight_OSI = weight_OI.float().unflatten(1, (-1, group))
    scale_OS1 = _scale(weight_OSI, 7.0)
    rounded_OSI = (weight_OSI / scale_OS1).round() * scale_OS1
    return rounded_OSI.flatten(1).to(weight_OI.dtype)


def _scale(weight_XI: torch.Tensor, largest: float) -> torch.Tensor:
    """What the largest value of each last dimension is divided by to become ``largest``."""
    most_X1 = weight_XI.float().abs().amax(-1, keepdim=True)
    return torch.where(most_X1 > 0, most_X1 / largest, torch.ones_like(most_X1))


def rounded(state: dict[str, torch.Tensor], bits: str | None) -> dict[str, torch.Tensor]:
    """The weights of a sub-block with its matrices rounded to a format; ``None`` changes none."""
    if bits is None:
        return state
    format_ = FORMATS[bits]
    return {name: format_(w) if w.ndim == 2 else w for name, w in state.items()}


@torch.no_grad()
def round_child(child: PuzzleForCausalLM) -> None:
    """Rounds a child's weights again after training has moved them, in place."""
    for layer, entry in zip(child.model.layers, child.config.blocks, strict=True):
        block = BlockOption.from_config(entry)
        for half, option in ((layer.self_attn, block.attention), (layer.mlp, block.ffn)):
            own = {} if half is None else half.state_dict()
            for name, weight in rounded(own, option.bits).items():
                own[name].copy_(weight)
