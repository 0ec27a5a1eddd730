"""Training of global distillation: phases of steps that resume where they were cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from adaptive.core.errors import UserError
from adaptive.core.run import digest
from adaptive.core.run.ranks import Ranks
from adaptive.llm_puzzle.data import Rows, steps_for
from adaptive.llm_puzzle.gkd.checkpoint import Checkpoint
from adaptive.llm_puzzle.gkd.loss import TERMS, GKDLoss, Pair
from adaptive.llm_puzzle.gkd.packing import Batch, micro_batches
from adaptive.llm_puzzle.gkd.weights import LocalWeights, Weights
from adaptive.llm_puzzle.group_trainer import schedule
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.settings import GKDConfig

Track = Callable[[Iterable[torch.Tensor], int], Iterable[torch.Tensor]]


def distill_globally(
    child: PuzzleForCausalLM,
    parent: PuzzleForCausalLM,
    rows: Rows,
    config: GKDConfig,
    seed: int,
    track: Track = lambda x, _: x,
    log: Callable[..., None] = lambda *_, **__: None,
    *,
    long_rows: Rows | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks | None = None,
) -> int:
    """Trains the child in place: on ``rows``, then on ``long_rows`` where ``config.long`` says so.

    The same seed gives the same weights, bit for bit on one machine with as many threads, also when
    a training that was killed goes on from its checkpoint. Neither packing nor micro-batches change
    what a step computes, and several processes compute the same steps up to rounding.

    Args:
        child: every weight is trained; all processes end with the same ones.
        parent: frozen.
        rows: training rows on the models' device, one document each.
        config: tokens, optimiser and weights of the loss terms.
        seed: fixes the order of the rows.
        track: progress over the steps of a phase.
        log: called as ``log(step, cosine=..., mse=..., kl=..., lm=..., lr=..., tokens=...)`` with
            the tokens so far; main process only.
        long_rows: rows of the long-context phase, on the same device.
        checkpoint: where to save and resume. It is the caller's to discard, once what was trained
            is safe.
        ranks: processes that share the work; child and parent may lie in main memory then, since
            each process takes only its part of their layers to its device.

    Returns:
        Tokens seen.

    Raises:
        UserError: a long-context phase without rows.
    """
    phases = _phases(rows, long_rows, config)
    if not phases:
        return 0
    ranks = ranks or Ranks(device=str(child.device))
    if ranks.world > 1:
        from adaptive.llm_puzzle.gkd.shard import ShardedWeights, shard_frozen

        weights: Weights = ShardedWeights(child, ranks)
        parent = shard_frozen(parent, ranks)
    else:
        weights = LocalWeights(child)
    training = _Training(weights, parent, config, seed, ranks, checkpoint)
    training.resume(digest([asdict(config), seed, [phase.identity() for phase in phases]]))
    for number in range(training.phase, len(phases)):
        training.run(number, phases[number], track, log if ranks.main else lambda *_, **__: None)
    weights.finish()
    return training.tokens


@dataclass(frozen=True)
class Phase:
    """Steps on rows of one length."""

    rows: Rows
    steps: int
    batch: int
    learning_rate: float
    first: int  # number of its first step in the log

    def identity(self) -> list[Any]:
        """What a checkpoint of this phase depends on."""
        checksum = int((self.rows.ids_NT.cpu() * 31 + 7).cumsum(1).sum())
        return [checksum, self.steps, self.batch, self.learning_rate]


def _phases(rows: Rows, long_rows: Rows | None, config: GKDConfig) -> list[Phase]:
    phases = []
    steps = 0
    if config.tokens:
        steps = steps_for(config.tokens, rows, config.batch)
        phases.append(Phase(rows, steps, config.batch, config.learning_rate, 0))
    if config.long.tokens:
        if long_rows is None:
            raise UserError(
                f"gkd.long.tokens={config.long.tokens} needs rows of gkd.long.length tokens"
            )
        # A step sees about as many tokens as before.
        mean = rows.tokens / len(rows), long_rows.tokens / len(long_rows)
        size = max(1, round(config.batch * mean[0] / mean[1]))
        more = steps_for(config.long.tokens, long_rows, size)
        phases.append(Phase(long_rows, more, size, config.long.learning_rate, steps))
    return phases


@dataclass(frozen=True)
class _Record:
    """What a step has to say, or nothing."""

    step: int = -1
    loss: GKDLoss | None = None
    rate: float = 0.0
    tokens: int = 0

    def write(self, log: Callable[..., None]) -> _Record:
        """Logs it; nothing is left to say."""
        if self.loss is not None:
            values = torch.stack(list(vars(self.loss).values())).tolist()
            terms = dict(zip(TERMS, values, strict=True))
            log(self.step, **terms, lr=self.rate, tokens=float(self.tokens))
        return _Record()


class _Training:
    """Weights, optimiser and counters of a distillation."""

    def __init__(
        self,
        weights: Weights,
        parent: PuzzleForCausalLM,
        config: GKDConfig,
        seed: int,
        ranks: Ranks,
        checkpoint: Checkpoint | None,
    ):
        self.weights, self.config, self.seed = weights, config, seed
        self.ranks, self.checkpoint = ranks, checkpoint
        pair = Pair(weights.model, parent, recompute=config.gradient_checkpointing)
        self.pair = weights.wrap(pair)
        self.phase = self.step = self.tokens = 0
        self.identity = ""
        self._reset_optimizer()

    def run(self, number: int, phase: Phase, track: Track, log: Callable[..., None]) -> None:
        """One phase from its current step to its end."""
        if number != self.phase:
            self.phase, self.step = number, 0
            self._reset_optimizer()
        batches = phase.rows.training_indices(
            phase.batch, phase.steps, self.seed + 1_000_003 * number
        )
        for _ in range(self.step):  # seen before the interruption
            next(batches)
        # Batches are laid out on the host, and a step is logged while the next one computes: to ask
        # a GPU for anything is to wait until it has nothing left to do.
        rows, waiting = phase.rows.to(torch.device("cpu")), _Record()
        for index in track(batches, phase.steps - self.step):
            rate = phase.learning_rate * schedule(self.step, phase.steps, self.config.warmup)
            documents = rows.select(index)
            loss = self._update(documents, rate)
            waiting.write(log)
            self.tokens += documents.tokens
            waiting = _Record(phase.first + self.step, loss, rate, self.tokens)
            self.step += 1
            if self._due(done=self.step == phase.steps):
                waiting = waiting.write(log)
                self._save()
        waiting.write(log)

    def _update(self, documents: Rows, rate: float) -> GKDLoss:
        """One optimiser step; the loss is averaged over the tokens of all micro-batches."""
        config, device = self.config, torch.device(self.ranks.device)
        batches = micro_batches(
            documents, config.packing, config.micro_batch, self.ranks.world, device
        )
        tokens = sum(batch.tokens for batch in batches)
        predicted = sum(batch.predicted for batch in batches)
        sums_4 = torch.zeros(4, device=device)
        for batch in self._share(batches):
            found_4 = self.pair(batch)
            loss = GKDLoss.average(found_4, tokens, predicted).total(self.config)
            # FSDP averages gradients over processes, and these losses are to be added.
            (loss * self.ranks.world).backward()
            sums_4 += found_4.detach()
        nn.utils.clip_grad_norm_([w for _, w in self.weights.named()], self.config.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.weights.publish()
        return GKDLoss.average(self.ranks.sum_tensor(sums_4), tokens, predicted)

    def _share(self, batches: list[Batch]) -> Iterator[Batch]:
        """This process's micro-batches: as many for all, since they compute in step."""
        rank, world = self.ranks.rank, self.ranks.world
        for first in range(0, len(batches), world):
            mine = first + rank
            yield batches[mine] if mine < len(batches) else batches[0].blank()

    def _reset_optimizer(self) -> None:
        matrices = [weight for _, weight in self.weights.named() if weight.ndim >= 2]
        vectors = [weight for _, weight in self.weights.named() if weight.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.config.learning_rate,
            betas=(0.9, 0.95),
            fused=self.ranks.device.startswith("cuda"),
        )

    # --- resuming ---

    def resume(self, identity: str) -> None:
        """Goes on from the checkpoint, if there is one of the same work."""
        self.identity = identity
        if self.checkpoint is None:
            return
        tensors, about = self.checkpoint.load(identity, self.ranks)
        if not about:
            return
        self.phase, self.step, self.tokens = about["phase"], about["step"], about["tokens"]
        with torch.no_grad():
            for name, weight in self.weights.named():
                local(weight).copy_(tensors[f"weight.{name}"])
                for key in ("exp_avg", "exp_avg_sq"):
                    self.optimizer.state[weight][key] = torch.empty_like(weight)
                    local(self.optimizer.state[weight][key]).copy_(tensors[f"{key}.{name}"])
                step = tensors[f"step.{name}"].to(weight.device if self._fused else "cpu")
                self.optimizer.state[weight]["step"] = step
        self.weights.publish()
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.ranks.device)

    def _due(self, done: bool) -> bool:
        """When it is time to save, and at the end if saving has begun."""
        if self.checkpoint is None:
            return False
        due = self.checkpoint.due() or (done and self.checkpoint.directory.is_dir())
        return self.ranks.broadcast(due)

    def _save(self) -> None:
        assert self.checkpoint is not None
        tensors = {"random.cpu": torch.get_rng_state()}
        if self._fused:
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.ranks.device)
        for name, weight in self.weights.named():
            tensors[f"weight.{name}"] = local(weight)
            for key, value in self.optimizer.state[weight].items():
                tensors[f"{key}.{name}"] = local(value)
        about = {"identity": self.identity, "phase": self.phase, "step": self.step}
        self.checkpoint.save(tensors, {**about, "tokens": self.tokens}, self.ranks)

    @property
    def _fused(self) -> bool:
        return self.ranks.device.startswith("cuda")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
