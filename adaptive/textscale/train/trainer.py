"""The training loop.

Shapes: B samples, H x W pixels, h x w cells, 3 colours or outputs, 5 maps of targets.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from adaptive.core.errors import UserError
from adaptive.core.run import stage_seed
from adaptive.core.training import Stop, load_checkpoint, save_checkpoint, warmup_cosine
from adaptive.textscale.network.net import TextNet
from adaptive.textscale.train.losses import losses
from adaptive.textscale.train.samples import Samples, batches
from adaptive.textscale.train.settings import TrainConfig

REPORT_SECONDS = 10.0
CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Trainer:
    """A network, its optimiser and its samples.

    The same seed gives the same weights, bit for bit on one machine, also when a training that was
    killed goes on from its checkpoint: every sample is a function of the seed and its number, and
    nothing else is random.

    Attributes:
        net: on the CPU; it is moved to the device.
        samples: ``config.steps * config.batch`` of them.
        config: of the optimisation.
        work: directory of the checkpoint.
        device: where to train.
        workers: processes that make samples.
        log: called as ``log(step=..., loss=..., ...)`` about every ten seconds.
        shares: of the tokens of the full grid, for a backbone that spends them; each step draws one
            by its number.
        on_validate: called with the trainer after every ``config.validate_steps`` and at the end.

    Raises:
        UserError: a loss that is not finite.
    """

    net: TextNet
    samples: Samples
    config: TrainConfig
    work: Path
    device: str = "cpu"
    workers: int = 0
    shares: Sequence[float] = (1.0,)
    log: Callable[..., None] = lambda **_: None
    on_validate: Callable[[Trainer], None] = lambda _: None

    def __post_init__(self) -> None:
        assert len(self.samples) == self.config.steps * self.config.batch
        self.step, self.seconds = 0, 0.0
        self.on_gpu = self.device.startswith("cuda")
        self.net = self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore
        self.optimizer = _optimizer(self.net, self.config, fused=self.on_gpu)
        self.ema = self._averaged() if self.config.ema else None
        compiled = self.on_gpu if self.config.compile is None else self.config.compile
        if compiled and len(self.shares) > 1:
            # One program for each number of tokens, as static shapes are what makes them quick.
            dynamo: Any = torch._dynamo.config  # pyrefly: ignore[implicit-import]
            dynamo.recompile_limit = max(dynamo.recompile_limit, len(self.shares) + 2)
        self.forward: Any = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    @property
    def models(self) -> dict[str, nn.Module]:
        """The network, and its average where there is one."""
        return {"net": self.net} | ({"ema": self.ema.module} if self.ema else {})

    @property
    def best(self) -> TextNet:
        """The average where there is one, else the network."""
        found: Any = self.ema.module if self.ema else self.net
        return found

    def run(self) -> None:
        """Trains to the end, from the checkpoint where there is one.

        A signal to stop is taken between two steps, and nothing is lost.
        """
        path, config = self.work / CHECKPOINT, self.config
        if path.is_file():
            self.step, self.seconds = load_checkpoint(path, self.models, self.optimizer)
        self.net.train()
        begun = saved = reported = time.monotonic()
        before, first, reported_step = self.seconds, self.step, self.step
        loader = batches(self.samples, config.batch, self.workers, first, pin=self.on_gpu)
        with Stop() as stop:
            for step, (image_B3HW, target_B5hw) in enumerate(loader, first):
                found = self.update(step, image_B3HW, target_B5hw)
                self.step = step + 1
                now = time.monotonic()
                self.seconds = before + now - begun
                if step == 0 or self.step == config.steps or now - reported > REPORT_SECONDS:
                    self._report(found, (now - reported) / (self.step - reported_step))
                    reported, reported_step = time.monotonic(), self.step
                if self.step % config.validate_steps == 0 or self.step == config.steps:
                    self.on_validate(self)
                    self.net.train()
                stopped = stop.asked()
                if stopped or now - saved >= config.checkpoint_seconds:
                    save_checkpoint(path, self.step, self.models, self.optimizer, self.seconds)
                    saved = time.monotonic()
                if stopped:
                    break

    def update(
        self,
        step: int,
        image_B3HW: UInt8[Tensor, "B 3 H W"],
        target_B5hw: Float[Tensor, "B 5 h w"],
    ) -> dict[str, Tensor]:
        """One optimiser step; returns the parts of the loss, on the device."""
        config = self.config
        image_B3HW = image_B3HW.to(self.device, non_blocking=True)
        target_B5hw = target_B5hw.to(self.device, non_blocking=True)
        totals: dict[str, Tensor] = {}
        share = random.Random(stage_seed(self.samples.seed, f"tokens {step}")).choice(self.shares)
        parts = zip(
            image_B3HW.chunk(config.accumulate), target_B5hw.chunk(config.accumulate), strict=True
        )
        for image_b3HW, target_b5hw in parts:
            loss, found = self.forward(image_b3HW, target_b5hw, share)
            (loss / config.accumulate).backward()
            for name, value in found.items():
                totals[name] = totals.get(name, 0) + value.detach() / config.accumulate
        if config.grad_clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.net, step + 1)
        return totals

    def rate(self, step: int) -> float:
        """Of learning, at a step."""
        config = self.config
        return warmup_cosine(
            step, config.steps, config.warmup_steps, config.learning_rate, config.learning_rate_end
        )

    def _loss(
        self, image_B3HW: Tensor, target_B5hw: Tensor, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image_B3HW = image_B3HW.float().div(255).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            output_B3hw = self.net(image_B3HW, share)
        found = losses(output_B3hw, target_B5hw)
        loss = torch.stack(list(found.values())).sum()
        return loss, {"loss": loss, **found}

    def _autocast(self) -> Any:
        if self.on_gpu and self.config.amp:
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def _averaged(self) -> Any:
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.net, decay=self.config.ema, use_warmup=True)

    def _report(self, found: dict[str, Tensor], pace: float) -> None:
        numbers = {name: float(value) for name, value in found.items()}
        if not math.isfinite(numbers["loss"]):
            raise UserError(
                f"the loss is {numbers['loss']} at step {self.step}: lower train.learning_rate="
                f"{self.config.learning_rate}, or set train.grad_clip"
            )
        self.log(
            step=self.step,
            lr=self.rate(self.step - 1),
            images_per_second=self.config.batch / pace,
            eta=(self.config.steps - self.step) * pace,
            **numbers,
        )


def _optimizer(net: nn.Module, config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW; biases and scales of normalisation have no weight decay."""
    weights = [w for w in net.parameters() if w.requires_grad]  # those of a prior stay
    groups = [
        {"params": [w for w in weights if w.ndim > 1]},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
    )
