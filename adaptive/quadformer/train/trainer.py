"""The training loop.

Shapes: B images, K classes, C channels, H x W pixels; h x w of a saliency map.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adaptive.core.errors import UserError
from adaptive.core.run import Ranks, stage_seed
from adaptive.core.training import load_checkpoint, save_checkpoint
from adaptive.quadformer.data import Augment, Batch, Batches, ImageSet, Mix
from adaptive.quadformer.models import Normalise
from adaptive.quadformer.settings import AugmentConfig, ModelConfig, TrainConfig
from adaptive.quadformer.train.loss import distillation, soft_cross_entropy
from adaptive.quadformer.train.maps import map_leaves
from adaptive.quadformer.train.optimizer import learning_rate, make_optimizer, set_rate

REPORT_SECONDS = 10.0
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Attributes:
        model, augment, train: as in the configuration.
        seed: of weights, order, augmentation and budgets.
    """

    model: ModelConfig
    augment: AugmentConfig
    train: TrainConfig
    seed: int

    @property
    def budgets(self) -> list[int]:
        """Numbers of tokens that are trained."""
        return self.train.num_tokens or [self.model.full_grid]


@dataclass
class Trainer:
    """A model, its optimiser and its data.

    The same seed gives the same weights, bit for bit on one machine, also when a training that was
    killed goes on from its checkpoint: everything random at a step is drawn from the seed and the
    step's number.

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
        UserError: a batch that is too large or cannot be divided.
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
        self.batches = Batches(
            len(self.images), config.batch, self.recipe.seed, ranks.rank, ranks.world
        )
        self.steps = config.epochs * self.batches.per_epoch
        self.step, self.seconds = 0, 0.0
        self.normalise = Normalise.of(self.model, ranks.device)
        self.on_gpu = ranks.device.startswith("cuda")
        compiled = self.on_gpu if config.compile is None else config.compile
        self.augment = Augment(self.recipe.augment, compiled)
        self.optimizer = make_optimizer(self.model, config, fused=self.on_gpu)
        self.ema = self._averaged() if config.ema else None
        self.forward = self._prepared(compiled)

    @property
    def models(self) -> dict[str, nn.Module]:
        """The model, and its average where there is one."""
        return {"model": self.model} | ({"ema": self.ema.module} if self.ema else {})

    def run(self) -> None:
        """Trains to the end, from the checkpoint where there is one."""
        path, config = self.work / CHECKPOINT, self.recipe.train
        if self.ranks.broadcast(path.is_file()):
            self.step, self.seconds = load_checkpoint(path, self.models, self.optimizer)
        self.model.train()
        started = saved = reported = time.monotonic() - self.seconds
        reported_step, every = self.step, config.validate_epochs * self.batches.per_epoch
        for step, batch in self.batches.read(self.images, range(self.step, self.steps)):
            loss = self.update(step, batch)
            self.step = step + 1
            now = time.monotonic()
            self.seconds = now - started
            if step == 0 or self.step == self.steps or now - reported > REPORT_SECONDS:
                pace = (now - max(reported, started)) / max(1, self.step - reported_step)
                self._report(float(loss), pace)
                reported, reported_step = time.monotonic(), self.step
            if self.step % every == 0 or self.step == self.steps:
                self._validate()
            if self.ranks.main and now - saved >= config.checkpoint_seconds:
                save_checkpoint(path, self.step, self.models, self.optimizer, self.seconds)
                saved = time.monotonic()

    def update(self, step: int, batch: Batch) -> Tensor:
        """One optimiser step; returns this process's loss, on the device."""
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
            waits = part + 1 < config.accumulate and self.ranks.world > 1
            with self.forward.no_sync() if waits else contextlib.nullcontext():  # type: ignore
                loss = self._loss(image_BCHW[mine], target_BK[mine], map_b1hw, tokens)
                (loss / config.accumulate).backward()
            total += loss.detach() / config.accumulate
        if config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        set_rate(self.optimizer, learning_rate(step, self.steps, self.batches.per_epoch, config))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step + 1)
        return total

    def prepare(self, step: int, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augmented, mixed and normalised images, their soft labels and maps, of a step."""
        augment, config = self.recipe.augment, self.recipe.train
        generator = self.batches.generator(step, self.ranks.device)
        image_BCHW = batch.pixel_B3HW.float() / 255
        image_BCHW, map_B1hw = self.augment(image_BCHW, generator, batch.map_B1hw)
        chance = random.Random(f"{self.recipe.seed}/mix/{step}/{self.ranks.rank}")
        mix = Mix.draw(chance, augment.mixup, augment.cutmix, image_BCHW.shape[-1])
        target_BK = mix.labels(batch.label_B, len(self.images.classes), config.smoothing)
        map_B1hw = None if map_B1hw is None else mix.images(map_B1hw)
        return self.normalise(mix.images(image_BCHW)), target_BK, map_B1hw

    def autocast(self) -> Any:
        """bfloat16 where it is wanted."""
        if self.on_gpu and self.recipe.train.amp:
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def _loss(
        self, image_BCHW: Tensor, target_BK: Tensor, map_B1hw: Tensor | None, tokens: int
    ) -> Tensor:
        distill, full = self.recipe.train.distill, self.recipe.model.full_grid
        given: dict[str, Any] = {"num_tokens": tokens}
        model: Any = self.model
        if map_B1hw is not None:
            given = {"leaves": map_leaves(map_B1hw, model.geometry, tokens)}
        with self.autocast():
            logits_BK = self.forward(image_BCHW, **given)
            loss = soft_cross_entropy(logits_BK, target_BK)
            if distill.teacher is None:
                return loss
            teacher = self.teacher
            if teacher is None:
                assert self.ema is not None
                teacher = self.ema.module
            with torch.no_grad():
                teacher_BK = teacher(image_BCHW, num_tokens=full)
        part = distillation(logits_BK, teacher_BK, distill.temperature)
        return (1 - distill.weight) * loss + distill.weight * part

    def _prepared(self, compiled: bool) -> nn.Module:
        """The model as steps call it: shared among processes, compiled."""
        forward = self.model
        if self.ranks.world > 1:
            forward = DistributedDataParallel(
                forward, device_ids=[self.ranks.device] if self.on_gpu else None
            )
        if not compiled:
            return forward
        # One program for each budget, as static shapes are what makes them quick.
        limit = max(8, 2 * len(self.recipe.budgets))
        torch._dynamo.config.recompile_limit = limit  # pyrefly: ignore[implicit-import]
        program: Any = torch.compile(forward, dynamic=False)
        return program

    def _averaged(self) -> Any:
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.model, decay=self.recipe.train.ema, use_warmup=True)

    def _validate(self) -> None:
        self.on_epoch(self)
        self.model.train()

    def _report(self, loss: float, pace: float) -> None:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {self.step}: lower train.lr={self.recipe.train.lr}, "
                "or set train.clip"
            )
        config = self.recipe.train
        self.log(
            step=self.step,
            loss=loss,
            lr=learning_rate(self.step - 1, self.steps, self.batches.per_epoch, config),
            images_per_second=config.batch / pace,
            eta=(self.steps - self.step) * pace,
        )
