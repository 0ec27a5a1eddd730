"""The training loop.

Shapes: B images, K classes, C channels, H x W pixels; h x w of a saliency map.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.core.run import Ranks, stage_seed
from adaptive.core.training import Stop, load_checkpoint, save_checkpoint
from adaptive.quadformer.data import Batch, Batches, ImageSet, Mix, Prepare
from adaptive.quadformer.train.objective import Objective, compiles, on_gpu
from adaptive.quadformer.train.optimizer import learning_rate, make_optimizer, set_rate
from adaptive.quadformer.train.recipe import Recipe

REPORT_SECONDS = 10.0
CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Trainer:
    """A model, its optimiser and its data.

    The same seed gives the same weights, bit for bit on the CPU, also when a training that was
    killed goes on from its checkpoint: everything random at a step is drawn from the seed and the
    step's number. On a GPU the draws are the same too, but sums of gradients may be rounded in
    another order.

    Attributes:
        model: on the device of ``ranks``; with its ViT as ``vit``.
        images: training images.
        recipe: settings.
        work: directory of the checkpoint.
        ranks: processes that share each batch.
        teacher: a trained model on the device, where ``train.distill.teacher`` names one.
        log: called as ``log(step=..., loss=..., ...)`` about every ten seconds.
        on_epoch: called with the trainer after every ``train.validate_epochs`` and at the end.

    Raises:
        UserError: a batch that is too large or cannot be divided, or a number of tokens that the
            model cannot spend.
    """

    model: nn.Module
    images: ImageSet
    recipe: Recipe
    work: Path
    ranks: Ranks = field(default_factory=Ranks)
    teacher: nn.Module | None = None
    log: Callable[..., None] = lambda **_: None
    on_epoch: Callable[[Trainer], None] = lambda _: None

    def __post_init__(self) -> None:
        config, ranks = self.recipe.train, self.ranks
        parts = ranks.world * config.accumulate
        if config.batch % parts:
            raise UserError(
                f"train.batch={config.batch} must be a multiple of {parts}: {ranks.world} "
                f"processes times train.accumulate={config.accumulate}"
            )
        if config.batch > len(self.images):
            raise UserError(
                f"train.batch={config.batch} is more than the {len(self.images)} training images"
            )
        self.recipe.check_budgets(self.model)
        self.batches = Batches(
            len(self.images), config.batch, self.recipe.seed, ranks.rank, ranks.world
        )
        self.steps = config.epochs * self.batches.per_epoch
        self.step, self.seconds = 0, 0.0
        self.prepared = Prepare(
            self.recipe.augment, Normalise.of(self.model, ranks.device), compiles(config, ranks)
        )
        self.optimizer = make_optimizer(self.model, config, fused=on_gpu(ranks))
        self.ema = self._averaged() if config.ema else None
        teacher = self.teacher
        if config.distill.teacher == "ema":
            assert self.ema is not None
            teacher = self.ema.module
        self.objective = Objective(self.model, self.recipe, ranks, teacher)

    @property
    def models(self) -> dict[str, nn.Module]:
        """The model, and its average where there is one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema else {})

    def run(self) -> None:
        """Trains to the end, from the checkpoint where there is one.

        A signal to stop is taken between two steps, and nothing is lost.
        """
        path, config = self.work / CHECKPOINT, self.recipe.train
        if self.ranks.broadcast(path.is_file()):
            self.step, self.seconds = load_checkpoint(path, self.models, self.optimizer)
        self.model.train()
        begun = saved = reported = time.monotonic()
        before, reported_step = self.seconds, self.step
        every = config.validate_epochs * self.batches.per_epoch
        with Stop(self.ranks) as stop:
            for step, batch in self.batches.read(self.images, range(self.step, self.steps)):
                loss = self.update(step, batch)
                self.step = step + 1
                now = time.monotonic()
                self.seconds = before + now - begun
                if step == 0 or self.step == self.steps or now - reported > REPORT_SECONDS:
                    self._report(float(loss), (now - reported) / (self.step - reported_step))
                    reported, reported_step = time.monotonic(), self.step
                if self.step % every == 0 or self.step == self.steps:
                    self._validate()
                stopped = stop.asked()
                if self.ranks.main and (stopped or now - saved >= config.checkpoint_seconds):
                    save_checkpoint(path, self.step, self.models, self.optimizer, self.seconds)
                    saved = time.monotonic()
                if stopped:
                    break

    def update(self, step: int, batch: Batch) -> Tensor:
        """One optimiser step; returns this process's loss, on the device."""
        config = self.recipe.train
        total = self.gradients(step, batch)
        if config.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        set_rate(self.optimizer, learning_rate(step, self.steps, self.batches.per_epoch, config))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step + 1)
        return total

    def gradients(self, step: int, batch: Batch) -> Tensor:
        """Adds the step's gradient to the weights' own; returns this process's loss."""
        config, rank = self.recipe.train, self.ranks.rank
        image_BCHW, target_BK, map_B1hw = self.prepare(step, batch)
        tokens = self.batches.tokens(step, self.recipe.budgets)
        torch.manual_seed(stage_seed(self.recipe.seed, f"dropout {step} of rank {rank}"))
        total = torch.zeros((), device=image_BCHW.device)
        size = len(image_BCHW) // config.accumulate
        for part in range(config.accumulate):
            mine = slice(part * size, (part + 1) * size)
            map_b1hw = None if map_B1hw is None else map_B1hw[mine]
            # Gradients are exchanged once, with the last part.
            with self.objective.exchange(part + 1 == config.accumulate):
                loss = self.objective(image_BCHW[mine], target_BK[mine], map_b1hw, tokens)
                (loss / config.accumulate).backward()
            total += loss.detach() / config.accumulate
        return total

    def prepare(self, step: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented, mixed and normalised images, their soft labels and maps, of a step."""
        augment, config = self.recipe.augment, self.recipe.train
        generator = self.batches.generator(step, self.ranks.device)
        chance = random.Random(f"{self.recipe.seed}/mix/{step}/{self.ranks.rank}")
        mix = Mix.draw(chance, augment.mixup, augment.cutmix, batch.pixel_B3HW.shape[-1])
        target_BK = mix.labels(batch.label_B, len(self.images.classes), config.smoothing)
        image_BCHW, map_B1hw = self.prepared(batch.pixel_B3HW, generator, mix, batch.map_B1hw)
        return image_BCHW, target_BK, map_B1hw

    def _averaged(self) -> Any:
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.model, decay=self.recipe.train.ema, use_warmup=True)

    def _validate(self) -> None:
        self.on_epoch(self)
        self.model.train()

    def _report(self, loss: float, pace: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.step}: lower train.learning_rate="
                f"{self.recipe.train.learning_rate}, or set train.grad_clip"
            )
        config = self.recipe.train
        self.log(
            step=self.step,
            loss=loss,
            lr=learning_rate(self.step - 1, self.steps, self.batches.per_epoch, config),
            images_per_second=config.batch / pace,
            eta=(self.steps - self.step) * pace,
        )
