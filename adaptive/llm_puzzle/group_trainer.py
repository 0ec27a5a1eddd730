"""Training the variants that one option makes of a group of layers.

Shapes: G layers trained at once, M real tokens of a batch of rows, H hidden size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from adaptive.core.run import stage_seed
from adaptive.llm_puzzle.activations import ahead
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption, Option, side
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.initialise import LayerInitialiser
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.settings import DistillConfig
from adaptive.llm_puzzle.shapes import shape
from adaptive.llm_puzzle.trainee import Trainee
from adaptive.llm_puzzle.walk import LayerActivations, Positions

HELD_OUT = 8  # one row in so many measures losses and is not trained on
CHECKS = 8  # of the held-out loss during a training that may stop early


@dataclass
class Speed:
    """What training has taken so far.

    Attributes:
        tokens: trained on, by all variants together.
        flops: of the variants (forward and backward) and of the frozen halves (forward, and the
            gradient of their input); attention scores are counted dense.
        seconds: by the wall.
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Part:
    """Activations of a layer to train on, those held out, and what initialises its variants."""

    train: LayerActivations
    held: LayerActivations
    initialise: LayerInitialiser

    @staticmethod
    def of(
        model: PuzzleForCausalLM, at: LayerActivations, held: int, batch: int, ridge: float
    ) -> _Part:
        train = at.part(slice(held, None))
        initialise = LayerInitialiser(model, train, batch, ridge)
        return _Part(train, at.part(slice(held)) if held else train, initialise)


class GroupTrainer:
    """Initialises and trains variants of some layers.

    Variants of one half start from the parent. Pairs of halves start from the library's variants of
    either, so that what training them together brings is on top of training them apart.

    Args:
        model: the parent.
        group: activations of the layers.
        rows: that they belong to.
        config: initialisation and training.
        batch: rows at once where nothing is trained.
        seed: together with the option it fixes a variant's training.
        speed: is added to.
        library: of variants trained apart; only pairs need it.
    """

    def __init__(
        self,
        model: PuzzleForCausalLM,
        group: list[LayerActivations],
        rows: Rows,
        config: DistillConfig,
        batch: int,
        seed: int,
        speed: Speed,
        library: Library | None = None,
    ):
        self.model, self.config, self.batch, self.seed = model, config, batch, seed
        self.group, self.speed, self.library = group, speed, library
        held = max(1, len(rows) // HELD_OUT) if len(rows) > 1 else 0
        self.rows = Rows(rows.ids_NT[held:], rows.lengths_N[held:])
        self.positions = Positions.of(model, group[0].x_NTH)
        self.parts = [_Part.of(model, at, held, batch, config.ridge) for at in group]

    def __call__(
        self, option: Option, layers: Sequence[int]
    ) -> Iterator[tuple[PuzzleLayer, VariantRecord]]:
        """Trained variants; one that training made worse keeps its initial weights.

        Args:
            option: what to make.
            layers: of the group, by position.
        """
        parts = [self.parts[i] for i in layers]
        modules, losses = [], []
        for part in parts:
            starts, how = self._starts(part, option)
            found = {name: self.loss(m, option, part.held) for name, m in starts.items()}
            losses.append({**found, "start": found[how]})
            modules.append(starts[how])
        initial = [{n: w.clone() for n, w in m.state_dict().items()} for m in modules]
        tokens = [0] * len(modules)
        if self.config.tokens:
            tokens = self._train(modules, option, parts)
        for i, (module, part) in enumerate(zip(modules, parts, strict=True)):
            start = losses[i]["start"]
            loss = self.loss(module, option, part.held) if tokens[i] else start
            if not loss < start:  # also when it is NaN
                module.load_state_dict(initial[i])
                loss = start
            record = VariantRecord(
                layer=part.train.index,
                side=side(option),
                option=option.label,
                params=sum(weight.numel() for weight in module.parameters()),
                loss_paper=losses[i].get("paper"),
                loss_ridge=losses[i].get("ridge"),
                loss_start=start,
                loss=loss,
                tokens=tokens[i],
            )
            yield module, record

    def _starts(self, part: _Part, option: Option) -> tuple[dict[str, PuzzleLayer], str]:
        """Initial variants, and the name of the one to train."""
        if isinstance(option, BlockOption):
            assert self.library is not None
            apart = self.library.load_block(self.model, part.train.index, option)
            return {"apart": apart}, "apart"
        return {how: part.initialise(option, how) for how in ("paper", "ridge")}, self.config.init

    def _train(
        self, modules: list[PuzzleLayer], option: Option, parts: Sequence[_Part]
    ) -> list[int]:
        """Trains the modules in place; returns the tokens that each has seen."""
        config, begun = self.config, time.perf_counter()
        train, held = [part.train for part in parts], [part.held for part in parts]
        trainee = Trainee(option, modules, [at.layer for at in train], self.positions)
        fused = self.model.device.type == "cuda"
        optimizer = torch.optim.AdamW(
            trainee.weights,
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            fused=fused,
        )
        steps = steps_for(config.tokens, self.rows, config.batch)
        watch = _Watch(trainee, config.early_stop, steps, lambda: self._losses(trainee, held))
        seed = stage_seed(self.seed, f"{side(option)}/{option.label}")
        order = list(self.rows.training_indices(config.batch, steps, seed))
        tokens = 0
        coming = self._batches(train, order)
        # What waits elsewhere is fetched while the step before it computes.
        waits = train[0].x_NTH.device.type != self.model.device.type
        for step, batches in enumerate(ahead(coming) if waits else coming):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, steps, config.warmup)
            optimizer.zero_grad(set_to_none=True)
            # A variant's own loss is all that reaches it: the sum keeps them apart.
            _errors_G(trainee, batches).sum().backward()
            trainee.clip(config.grad_clip)
            optimizer.step()
            tokens += int(self.rows.lengths_N[order[step]].sum())
            if watch(step, tokens):
                break
        seen = watch.finish(tokens)
        self._count(option, train[0], order[: step + 1], len(modules), begun)
        return seen

    def _batches(
        self, train: Sequence[LayerActivations], order: Sequence[torch.Tensor]
    ) -> Iterator[list[LayerActivations]]:
        for index in order:
            length = int(self.rows.lengths_N[index].max())
            yield [at.rows(index, length) for at in train]

    def _count(
        self,
        option: Option,
        at: LayerActivations,
        order: Sequence[torch.Tensor],
        variants: int,
        begun: float,
    ) -> None:
        """Adds a training to ``speed``."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.speed.seconds += time.perf_counter() - begun
        lengths = torch.cat([self.rows.lengths_N[index] for index in order]).tolist()
        halves = option.halves if isinstance(option, BlockOption) else (option,)
        trained = [shape(self.model.config, half) for half in halves]
        flops = 3 * sum(half.prefill_flops(1, n) for half in trained for n in lengths)
        if isinstance(option, AttentionOption):
            block = self.model.config.blocks[at.index]["ffn"]
            partner = shape(self.model.config, FFNOption.from_config(block))
            flops += 2 * sum(partner.prefill_flops(1, n) for n in lengths)
        self.speed.flops += variants * flops
        self.speed.tokens += variants * sum(lengths)

    @torch.no_grad()
    def loss(self, module: PuzzleLayer, option: Option, held: LayerActivations) -> float:
        """Normalised error of the block on held-out rows."""
        # Summed on the device: to ask a GPU for a number is to wait for it.
        error, energy = torch.zeros(2, dtype=torch.float64, device=held.device)
        for at in held.batches(self.batch):
            y_MH = at.y_NTH[at.mask_NT]
            error += (self._output(module, option, at) - y_MH).double().square().sum()
            energy += y_MH.double().square().sum()
        return float(error / energy)

    def _output(self, module: PuzzleLayer, option: Option, at: LayerActivations) -> torch.Tensor:
        """Output of the block at real tokens, [M, H], with the parent's half if one is missing."""
        if isinstance(option, FFNOption):
            return module.feed(at.mid_NTH[at.mask_NT])
        mid_BTH = self.positions.attend(module, at.x_NTH)
        feeding = module if isinstance(option, BlockOption) else at.layer
        return feeding.feed(mid_BTH[at.mask_NT])

    @torch.no_grad()
    def _losses(self, trainee: Trainee, held: Sequence[LayerActivations]) -> torch.Tensor:
        """The held-out losses of variants in training, [G]."""
        count, total_G = 0, torch.zeros(trainee.size, dtype=torch.float64)
        for batches in zip(*(at.batches(self.batch) for at in held), strict=True):
            tokens = int(batches[0].mask_NT.sum())
            total_G += tokens * _errors_G(trainee, batches).double().cpu()
            count += tokens
        return total_G / count


def _errors_G(trainee: Trainee, batches: Sequence[LayerActivations]) -> torch.Tensor:
    """MSE(parent's output, variant's output) / MSE(parent's output, 0) of each variant, [G]."""
    y_GMH = torch.stack([at.y_NTH[at.mask_NT] for at in batches]).float()
    error_G = (trainee(batches).float() - y_GMH).square().sum((1, 2))
    return error_G / y_GMH.square().sum((1, 2))


class _Watch:
    """Stops variants whose held-out loss no longer falls.

    Args:
        trainee: in training.
        gain: relative fall from one check to the next below which a variant stops; 0 never stops.
        steps: of the whole training.
        losses: measures the held-out losses, [G].
    """

    def __init__(
        self, trainee: Trainee, gain: float, steps: int, losses: Callable[[], torch.Tensor]
    ):
        self.trainee, self.gain, self.losses = trainee, gain, losses
        self.every = max(1, steps // CHECKS)
        self.last_G: torch.Tensor | None = None
        self.stopped: dict[int, int] = {}  # variant to the tokens that it has seen

    def __call__(self, step: int, tokens: int) -> bool:
        """Whether no variant is left to train."""
        if not self.gain or (step + 1) % self.every:
            return False
        now_G, last_G = self.losses(), self.last_G
        self.last_G = now_G
        if last_G is None:
            return False
        for g in range(self.trainee.size):
            falls = bool(now_G[g] < (1 - self.gain) * last_G[g])
            if g not in self.stopped and not falls:
                self.trainee.take_over([g])  # what it is now; others may train on
                self.stopped[g] = tokens
        return len(self.stopped) == self.trainee.size

    def finish(self, tokens: int) -> list[int]:
        """Writes what was learned into the modules; tokens that each has seen."""
        everyone = range(self.trainee.size)
        self.trainee.take_over([g for g in everyone if g not in self.stopped])
        return [self.stopped.get(g, tokens) for g in everyone]


def schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine down to a tenth; a factor of the learning rate."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
