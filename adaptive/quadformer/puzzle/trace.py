"""A forward pass of the parent taken apart: what enters every block, and what may follow it.

Shapes: B images, L tokens, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.patches import leaf_areas
from adaptive.quadformer.slim import SlimBlock
from adaptive.quadformer.trunk import classify


class Trace:
    """The parent's pass over a batch at a number of tokens.

    Args:
        model: whose blocks are slim.
        image_BCHW: normalised.
        num_tokens: of each image.

    Attributes:
        logits_BK: of the parent.
        extras: what every block is told besides its tokens.
    """

    def __init__(self, model: Quadformer, image_BCHW: Tensor, num_tokens: int):
        self._model = model
        self.blocks: list[SlimBlock] = list(model.vit.blocks)
        self._enter: list[Tensor] = []
        self.extras: list[dict[str, Any]] = []
        full = num_tokens == model.geometry.cells
        leaves = None if full else model.select(image_BCHW, num_tokens)
        # Of this batch's patches: pooling goes by them.
        self._area_BN = None if leaves is None else leaf_areas(leaves.node_BN, model.geometry)
        with self._watching():
            x_BLD = model.forward_features(image_BCHW, num_tokens, leaves)
        self.logits_BK: Tensor = self._classify(x_BLD)

    def enters(self, index: int) -> Float[Tensor, "B L D"]:
        """What enters a block; of the index after the last one, what leaves that."""
        return self._enter[index]

    def attended(self, index: int) -> Float[Tensor, "B L D"]:
        """What is between the halves of a block."""
        return self.blocks[index].attend(self.enters(index), **self.extras[index])

    def logits(self, index: int, y_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B K"]:
        """What the model says where something else leaves a block."""
        for block, extras in zip(self.blocks[index + 1 :], self.extras[index + 1 :], strict=True):
            y_BLD = block(y_BLD, **extras)
        return self._classify(self._model.vit.norm(y_BLD))

    def _classify(self, x_BLD: Tensor) -> Tensor:
        model = self._model
        return classify(model.vit, x_BLD, self._area_BN, area_attention=model.area_attention)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        def entered(_: Any, args: tuple[Tensor, ...], extras: dict[str, Any]) -> None:
            self._enter.append(args[0])
            self.extras.append(extras)

        def left(_: Any, args: tuple[Tensor, ...]) -> None:
            self._enter.append(args[0])

        hooks = [b.register_forward_pre_hook(entered, with_kwargs=True) for b in self.blocks]
        hooks.append(self._model.vit.norm.register_forward_pre_hook(left))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def kl(reference_BK: Float[Tensor, "B K"], logits_BK: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """KL divergence (nats) of each image's classes from the reference's."""
    log_p, log_q = (x.float().log_softmax(-1) for x in (reference_BK, logits_BK))
    return (torch.exp(log_p) * (log_p - log_q)).sum(-1)
