"""A whole model as an ONNX file: prior, selection of patches, embedding, ViT and head.

>>> export_onnx(model, "quadformer-100.onnx", num_tokens=100)

The file takes any number of images and always spends the same tokens on each. ``torch.export``
needs nothing of this: ``torch.export.export(model, (image_BCHW,))`` works as for other models.

Shapes: B images, H, W pixels, K classes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.core.solvers.quadtree.onnx import translations
from adaptive.quadformer.model import Quadformer

IMAGE, LOGITS = "image", "logits"  # names of the file's input and output


def export_onnx(model: Quadformer, path: str | Path, *, num_tokens: int | None = None) -> Path:
    """Writes a model for ONNX Runtime and other engines.

    The file's input ``image`` is float [B, 3, H, W] with any B, normalised as for the model itself;
    its output ``logits`` is [B, K]. Its metadata hold ``num_tokens``, and ``mean`` and ``std`` of
    the normalisation as JSON lists, so that it can be used where ``adaptive`` is not installed. A
    model on the CPU in float32 runs everywhere.

    Args:
        model: its mode is restored, nothing else of it changes.
        path: of the file, usually ``.onnx``; replaced in one step.
        num_tokens: patches of each image; None: as the model is set.

    Returns:
        The path.

    Raises:
        UserError: an infeasible number of tokens, an operation that ONNX does not have (of a prior
            that is computed with FFTs, say), or the extra ``onnx`` is not installed.
    """
    tokens, path = model.tokens(num_tokens), Path(path)
    weight = model.vit.patch_embed.proj.weight
    # Two images: of one, the exporter would conclude that there is always one.
    image_BCHW = torch.zeros(2, 3, *model.img_size, dtype=weight.dtype, device=weight.device)
    table, training = translations(), model.training
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                _AtTokens(model, tokens).eval(),
                (image_BCHW,),
                dynamo=True,
                verbose=False,
                input_names=[IMAGE],
                output_names=[LOGITS],
                custom_translation_table=table,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0].split(". See")[0]
        raise UserError(
            f"{path}: this model does not export to ONNX ({reason}): try another prior, such as "
            "gain or centre, or a plain ViT"
        ) from error
    finally:
        model.train(training)
    assert program is not None  # with dynamo there always is one
    statistics = {"mean": model.mean_C11, "std": model.std_C11}
    program.model.metadata_props["num_tokens"] = str(tokens)
    for name, value in statistics.items():
        rounded = [round(number, 8) for number in value.flatten().tolist()]
        program.model.metadata_props[name] = json.dumps(rounded)
    with atomic_path(path) as temporary:
        program.save(temporary)
    return path


class _AtTokens(nn.Module):
    """A model at a fixed number of tokens, of one argument."""

    def __init__(self, model: Quadformer, tokens: int):
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.model(image_BCHW, num_tokens=self.tokens)
