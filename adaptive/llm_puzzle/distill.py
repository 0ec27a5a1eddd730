"""Blockwise local distillation, decoupled (Puzzle, section 3).

A variant of one half of a layer is trained with the parent's other half, frozen, around it: the
block gets the parent's activation as input and has to reproduce the parent's output. No gradient
leaves the block, so every variant of every layer is trained alone, and one pass of the parent
serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from adaptive.core.run import stage_seed
from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption, side
from adaptive.llm_puzzle.config import DistillConfig
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.initialise import LayerInitialiser
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.space import LayerSpace
from adaptive.llm_puzzle.walk import LayerActivations, Positions, walk

HELD_OUT = 8  # one row in so many measures losses and is not trained on

Job = tuple[LayerActivations, AttentionOption | FFNOption]


def build_library(
    model: PuzzleForCausalLM,
    space: list[LayerSpace],
    rows: Rows,
    config: DistillConfig,
    library: Library,
    seed: int,
    batch_size: int,
    track: Callable[[Iterator[Job], int], Iterable[Job]] = lambda jobs, _: jobs,
    log: Callable[[VariantRecord], None] = lambda _: None,
) -> None:
    """Makes every variant of the space that the library does not hold yet.

    Args:
        model: the parent.
        space: options of every layer.
        rows: calibration rows on the model's device.
        config: initialisation and training.
        library: where variants go; ones already there are kept.
        seed: together with layer and option it fixes a variant's training.
        batch_size: rows in one pass of the parent.
        track: progress over the variants to make.
        log: called with each new variant's record.
    """
    missing = [
        [option for option in options.variants if library.record(layer, option) is None]
        for layer, options in enumerate(space)
    ]

    def jobs() -> Iterator[Job]:
        for activations in walk(model, rows, batch_size):
            for option in missing[activations.index]:
                yield activations, option

    trainer: _LayerTrainer | None = None
    for activations, option in track(jobs(), sum(map(len, missing))):
        if trainer is None or trainer.index != activations.index:
            trainer = _LayerTrainer(model, activations, rows, config, batch_size, seed)
        module, record = trainer(option)
        library.save(option, module, record)
        log(record)


class _LayerTrainer:
    """Initialises and trains variants of one layer."""

    def __init__(
        self,
        model: PuzzleForCausalLM,
        activations: LayerActivations,
        rows: Rows,
        config: DistillConfig,
        batch_size: int,
        seed: int,
    ):
        held = max(1, len(rows) // HELD_OUT) if len(rows) > 1 else 0
        self.index = activations.index
        self.train, self.held = activations.part(slice(held, None)), activations.part(slice(held))
        if not held:
            self.held = self.train
        self.rows = Rows(rows.ids_NT[held:], rows.lengths_N[held:])
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.positions = Positions.of(model, activations.x_NTH)
        self.initialise = LayerInitialiser(model, self.train, batch_size, config.ridge)

    def __call__(self, option: AttentionOption | FFNOption) -> tuple[PuzzleLayer, VariantRecord]:
        """A trained variant; one that training made worse keeps its initial weights."""
        starts = {how: self.initialise(option, how) for how in ("paper", "ridge")}
        losses = {how: self.loss(module, option) for how, module in starts.items()}
        module, start = starts[self.config.init], losses[self.config.init]
        initial = {name: weight.clone() for name, weight in module.state_dict().items()}
        tokens = self._train(module, option) if self.config.tokens else 0
        loss = self.loss(module, option) if tokens else start
        if not loss < start:  # also when it is NaN
            module.load_state_dict(initial)
            loss = start
        record = VariantRecord(
            layer=self.index,
            side=side(option),
            option=option.label,
            params=sum(weight.numel() for weight in module.parameters()),
            loss_paper=losses["paper"],
            loss_ridge=losses["ridge"],
            loss_start=start,
            loss=loss,
            tokens=tokens,
        )
        return module, record

    def _train(self, module: PuzzleLayer, option: AttentionOption | FFNOption) -> int:
        config = self.config
        steps = steps_for(config.tokens, self.rows, config.batch_size)
        seed = stage_seed(self.seed, f"{self.index}/{side(option)}/{option.label}")
        module.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        tokens = 0
        for step, index in enumerate(self.rows.training_indices(config.batch_size, steps, seed)):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, steps, config.warmup)
            batch = self.train.rows(index, int(self.rows.lengths_N[index].max()))
            loss = self._normalised_error(module, option, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), config.grad_clip)
            optimizer.step()
            tokens += int(self.rows.lengths_N[index].sum())
        module.eval().requires_grad_(False)
        return tokens

    @torch.no_grad()
    def loss(self, module: PuzzleLayer, option: AttentionOption | FFNOption) -> float:
        """Normalised error of the block on held-out rows."""
        error = energy = 0.0
        for start in range(0, len(self.held.x_NTH), self.batch_size):
            batch = self.held.part(slice(start, start + self.batch_size))
            y_MH = batch.y_NTH[batch.mask_NT]
            error += (self._output(module, option, batch) - y_MH).double().square().sum().item()
            energy += y_MH.double().square().sum().item()
        return error / energy

    def _normalised_error(
        self, module: PuzzleLayer, option: AttentionOption | FFNOption, batch: LayerActivations
    ) -> torch.Tensor:
        y_MH = batch.y_NTH[batch.mask_NT]
        error = (self._output(module, option, batch) - y_MH).square().sum()
        return error / y_MH.square().sum()

    def _output(
        self, module: PuzzleLayer, option: AttentionOption | FFNOption, batch: LayerActivations
    ) -> torch.Tensor:
        """Output of the block at real tokens, [M, H], with the parent's other half."""
        if isinstance(option, FFNOption):
            return module.feed(batch.mid_NTH[batch.mask_NT])
        mid_BTH = self.positions.attend(module, batch.x_NTH)
        return batch.layer.feed(mid_BTH[batch.mask_NT])


def schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine down to a tenth; a factor of the learning rate."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
