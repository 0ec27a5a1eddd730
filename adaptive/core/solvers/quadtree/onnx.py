"""What torch's ONNX exporter must be told to translate the selection of patches.

>>> torch.onnx.export(model, (image,), dynamo=True, custom_translation_table=translations())
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from adaptive.core.errors import UserError


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Stable sorts as ONNX's TopK, which puts the first of equal values first.

    Raises:
        UserError: the extra ``onnx`` is not installed.
    """
    try:
        from onnxscript import opset18
    except ImportError:
        raise UserError(
            "exporting to ONNX needs onnxscript: pip install 'adaptive-compute[onnx]'"
        ) from None
    op: Any = opset18

    def sort_stable(self, stable=True, dim=-1, descending=False):  # named as aten's arguments
        count = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
        return op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)

    return {torch.ops.aten.sort.stable: sort_stable}
