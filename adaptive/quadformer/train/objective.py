"""What a step computes: the model's loss, shared among processes and compiled.

Shapes: B images, K classes, C channels, H x W pixels; h x w of a saliency map.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adaptive.core.run import Ranks
from adaptive.quadformer.settings import TrainConfig
from adaptive.quadformer.train.loss import distillation, soft_cross_entropy
from adaptive.quadformer.train.maps import map_leaves
from adaptive.quadformer.train.recipe import Recipe


class Objective:
    """The loss of a model on a batch, by labels and by a teacher at the full grid.

    Args:
        model: on the device of ``ranks``.
        recipe: settings.
        ranks: processes that share each batch.
        teacher: of ``train.distill``, on the device in evaluation mode; None: labels alone.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, ranks: Ranks, teacher: nn.Module | None):
        self._model: Any = model
        self._recipe, self._several = recipe, ranks.world > 1
        self._amp = on_gpu(ranks) and recipe.train.amp
        if self._several:
            model = DistributedDataParallel(
                model,
                device_ids=[ranks.device] if on_gpu(ranks) else None,
                # The full grid has no coarse patches, so nothing for the detail branch to do.
                find_unused_parameters=recipe.model.detail and recipe.full_grid in recipe.budgets,
            )
        if compiles(recipe.train, ranks):
            # One program for each budget, as static shapes are what makes them quick, and one for
            # the teacher; autograd on and off may double them.
            dynamo: Any = torch._dynamo.config  # pyrefly: ignore[implicit-import]
            dynamo.recompile_limit = max(dynamo.recompile_limit, 2 * len(recipe.budgets) + 2)
            model = _compiled(model)
            teacher = None if teacher is None else _compiled(teacher)
        self._program, self._teacher = model, teacher

    def __call__(
        self,
        image_BCHW: Float[Tensor, "B C H W"],
        target_BK: Float[Tensor, "B K"],
        map_B1hw: Float[Tensor, "B 1 h w"] | None,
        num_tokens: int,
    ) -> Float[Tensor, ""]:
        """The mean loss.

        Args:
            image_BCHW: as the model takes them.
            target_BK: soft labels.
            map_B1hw: saliency that chooses the patches in the prior's place.
            num_tokens: of each image.
        """
        distill, given = self._recipe.train.distill, {"num_tokens": num_tokens}
        if map_B1hw is not None:
            given = {"leaves": map_leaves(map_B1hw, self._model.geometry, num_tokens)}
        with self._autocast():
            logits_BK = self._program(image_BCHW, **given)
            loss = soft_cross_entropy(logits_BK, target_BK)
            if self._teacher is None:
                return loss
            with torch.no_grad():
                teacher_BK = self._teacher(image_BCHW, num_tokens=self._recipe.full_grid)
        part = distillation(logits_BK, teacher_BK, distill.temperature)
        return (1 - distill.weight) * loss + distill.weight * part

    def exchange(self, wanted: bool) -> AbstractContextManager[Any]:
        """Around a backward pass after which the processes' gradients are, or are not, averaged."""
        program: Any = self._program
        return contextlib.nullcontext() if wanted or not self._several else program.no_sync()

    def _autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 where it is wanted."""
        if self._amp:
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()


def on_gpu(ranks: Ranks) -> bool:
    """Whether a process computes on a GPU."""
    return ranks.device.startswith("cuda")


def compiles(config: TrainConfig, ranks: Ranks) -> bool:
    """Whether the steps of a process are compiled."""
    return on_gpu(ranks) if config.compile is None else config.compile


def _compiled(model: nn.Module) -> Any:
    return torch.compile(model, dynamic=False)
