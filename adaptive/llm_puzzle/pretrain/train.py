"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptive.llm_puzzle.pretrain.checkpoint import load_checkpoint, save_checkpoint
from adaptive.llm_puzzle.pretrain.model import (
    add_dropout,
    autocast,
    build_parent,
    evaluate,
    window_loss,
)
from adaptive.llm_puzzle.pretrain.optim import make_optimizers
from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule
from adaptive.llm_puzzle.pretrain.tokens import TokenData

Log = Callable[..., None]
"""Called as ``log(step=..., loss=..., ...)``."""

REPORT_SECONDS = 10.0
"""Time between two progress records."""

WARM_STEPS, TIMED_STEPS = 5, 10


class Trainer:
    """A parent, its optimisers and its data on one device.

    Args:
        tokens: directory of ``prepare_tokens``.
        work: directory for ``checkpoint.safetensors``; a run continues from the one it finds.
        log: receives a record about every ten seconds and one at each validation.
        on_validation: called with the trainer after each validation, for example to export.
    """

    def __init__(
        self,
        tokens: Path,
        work: Path,
        shape: ParentShape,
        schedule: Schedule,
        *,
        device: str | torch.device,
        seed: int = 0,
        log: Log,
        on_validation: Callable[[Trainer], None] = lambda trainer: None,
    ):
        self.shape, self.schedule, self.seed = shape, schedule, seed
        self.device, self.log, self.on_validation = torch.device(device), log, on_validation
        self.data = TokenData(tokens, self.device)
        self.validation = self.data.validation(shape.context)
        self.path = work / "checkpoint.safetensors"
        self.step, self.steps = 0, schedule.steps
        self.losses: dict[str, dict[str, float]] = {}
        self._started = time.monotonic()
        self._reset()
        self._loss: Callable[[nn.Module, Tensor], Tensor] = window_loss
        if self.device.type == "cuda":
            # A model this small spends its time between kernels unless they are fused. Code that
            # was compiled for another trainer is no use: dropout hooks are not among its guards.
            torch.compiler.reset()
            self._loss = torch.compile(window_loss)

    @property
    def seconds(self) -> float:
        """Wall time of the run, including what it used before it was interrupted."""
        return time.monotonic() - self._started

    @property
    def tokens_seen(self) -> int:
        """Training tokens up to the current step."""
        return self.step * self.schedule.batch * self.shape.context

    def run(self) -> None:
        """Trains to the end (or from a checkpoint to the end)."""
        if self.path.exists():
            self._resume()
        elif self.schedule.seconds:
            self._choose_steps()
        every = max(1, self.steps // self.schedule.validations)
        reported, since = self.step, time.monotonic()
        while self.step < self.steps:
            loss = self._update()
            self.step += 1
            # Asking for the loss waits for the GPU, so ask seldom.
            if self.step % 10 == 0 and time.monotonic() - since > REPORT_SECONDS:
                value, now = loss.item(), time.monotonic()
                pace = (now - since) / (self.step - reported)
                reported, since = self.step, now
                self._report(value, pace)
                if self.schedule.seconds:  # slower than measured: end in time all the same
                    left = self.schedule.seconds - self.seconds
                    self.steps = min(self.steps, self.step + max(0, int(left / pace)))
            if self.step % every == 0 or self.step == self.steps:
                pause = time.monotonic()
                self._validate(loss=loss.item())
                since += time.monotonic() - pause
        if not self.losses:  # the checkpoint was already that of the last step
            self._validate()

    def _reset(self) -> None:
        """Untrained weights, the same tensors as before where there are some."""
        fresh = build_parent(self.shape, self.seed)
        nn.Module.to(fresh, self.device)
        if hasattr(self, "model"):  # keep the identity: the compiled code refers to it
            self.model.load_state_dict(fresh.state_dict())
        else:
            self.model = fresh.train()
            if self.schedule.dropout:
                add_dropout(self.model, self.schedule.dropout)
        self.optimizers = make_optimizers(
            self.model,
            self.schedule.optimizer,
            self.schedule.learning_rate,
            self.schedule.weight_decay,
        )

    def _update(self) -> Tensor:
        """One optimiser step; returns the loss before it, still on the device."""
        rate = self.schedule.rate(self.step, self.steps)
        batch = self.data.batch(self.step, self.schedule.batch, self.shape.context, self.seed)
        if self.schedule.dropout:  # the same draws after a resume
            torch.manual_seed(self.seed * 1_000_003 + self.step)
        with autocast(self.device):
            loss = self._loss(self.model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.grad_clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _choose_steps(self) -> None:
        """Sets ``steps`` so that the run fills ``schedule.seconds``, from a measured pace."""
        for _ in range(WARM_STEPS):
            self._update()
        self._evaluate()  # its first call is slow as well
        begun = time.monotonic()
        self._evaluate()
        validation, begun = time.monotonic() - begun, time.monotonic()
        losses = [self._update() for _ in range(TIMED_STEPS)]
        losses[-1].item()  # waits for the device
        pace = (time.monotonic() - begun) / TIMED_STEPS
        left = self.schedule.seconds - self.seconds - (validation + 2) * self.schedule.validations
        self.steps = max(TIMED_STEPS, min(self.schedule.steps, int(0.97 * left / pace)))
        self._reset()
        tokens = self.steps * self.schedule.batch * self.shape.context
        self.log(step=0, steps=self.steps, tokens=tokens, seconds_per_step=pace)

    def _evaluate(self) -> dict[str, dict[str, float]]:
        limit = self.schedule.valid_documents
        self.model.eval()
        with autocast(self.device):
            losses = {
                name: evaluate(self.model, documents, limit)
                for name, documents in self.validation.items()
            }
        self.model.train()
        return losses

    def _validate(self, **training: float) -> None:
        self.losses = self._evaluate()
        named = {f"valid.{name}": values["loss"] for name, values in self.losses.items()}
        self.log(step=self.step, **training, **named)
        about = {"step": self.step, "steps": self.steps, "seconds": self.seconds}
        save_checkpoint(self.path, self.model, self.optimizers, about)
        self.on_validation(self)

    def _resume(self) -> None:
        about = load_checkpoint(self.path, self.model, self.optimizers)
        self.step, self.steps = about["step"], about["steps"]
        self._started -= about["seconds"]
        self.log(step=self.step, steps=self.steps, resumed=True)

    def _report(self, loss: float, pace: float) -> None:
        self.log(
            step=self.step,
            loss=loss,
            lr=self.schedule.rate(self.step, self.steps),
            tokens_per_second=self.schedule.batch * self.shape.context / pace,
            eta=(self.steps - self.step) * pace,
        )
