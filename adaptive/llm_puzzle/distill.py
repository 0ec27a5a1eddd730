"""Blockwise local distillation, decoupled and coupled (Puzzle, section 3).

A variant of one half of a layer is trained with the parent's other half, frozen, around it: the
block gets the parent's activation as input and has to reproduce the parent's output. No gradient
leaves the block, so every variant of every layer is trained alone, and one pass of the parent
serves them all. Coupled, both halves of a pair are trained at once in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from adaptive.core.run import Ranks, shares
from adaptive.llm_puzzle.activations import Store
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, Option
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.group_trainer import GroupTrainer, Speed
from adaptive.llm_puzzle.library import Library, VariantRecord
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleModelConfig
from adaptive.llm_puzzle.settings import DistillConfig
from adaptive.llm_puzzle.shapes import shape
from adaptive.llm_puzzle.walk import LayerActivations, Relay, walk

GROUP_WEIGHTS = 2**22  # hidden size squared, times the layers of a group that is chosen, at most

Job = tuple[list[LayerActivations], Option]
"""The layers of a group, and an option that some of them have."""


def build_variants(
    model: PuzzleForCausalLM,
    wanted: Sequence[Sequence[Option]],
    rows: Rows,
    config: DistillConfig,
    library: Library,
    seed: int,
    batch: int,
    track: Callable[[Iterator[Job], int], Iterable[Job]] = lambda jobs, _: jobs,
    log: Callable[[VariantRecord], None] = lambda _: None,
    store: Store | None = None,
    speed: Speed | None = None,
    ranks: Ranks | None = None,
    apart: Library | None = None,
) -> None:
    """Makes every variant that the library does not hold yet.

    Of several processes each makes the variants of its own layers, in place as the parent's
    activations pass by.

    Args:
        model: the parent.
        wanted: options of every layer, of one half or of both.
        rows: calibration rows.
        config: initialisation and training.
        library: where variants go; ones already there are kept.
        seed: together with the option it fixes a variant's training.
        batch: rows in one pass of the parent.
        track: progress over the options of each group of layers.
        log: called with each new variant's record.
        store: where activations wait; None keeps them on the model's device.
        speed: is added to.
        ranks: the processes that share the work; None is one.
        apart: holds the variants that pairs start from; only pairs need it.
    """
    ranks = ranks or Ranks()
    parent = [BlockOption.from_config(entry) for entry in model.config.blocks]
    relay = Relay(ranks, shares(training_flops(model.config, wanted, parent), ranks.world))
    together = [g for g in groups(model, wanted, config, relay) if g[0] in relay.own]
    jobs_of = [
        [option for option in _options(wanted, group) if _lacking(library, wanted, group, option)]
        for group in together
    ]
    # All walk, or none does: who waits for activations that nobody sends waits for ever.
    if not ranks.sum(float(sum(map(len, jobs_of)))):
        return

    def jobs() -> Iterator[Job]:
        passing = iter(walk(model, rows, batch, store, relay))
        for group, options in zip(together, jobs_of, strict=True):
            found = list(itertools.islice(passing, len(group)))
            yield from ((found, option) for option in options)

    trainer: GroupTrainer | None = None
    speed = speed or Speed()
    for group, option in track(jobs(), sum(map(len, jobs_of))):
        if trainer is None or trainer.group is not group:
            trainer = GroupTrainer(model, group, rows, config, batch, seed, speed, apart)
        having = [i for i, at in enumerate(group) if option in wanted[at.index]]
        for module, record in trainer(option, having):
            if library.record(record.layer, option) is None:
                library.save(option, module, record)
                log(record)


def training_flops(
    config: PuzzleModelConfig, wanted: Sequence[Sequence[Option]], parent: Sequence[BlockOption]
) -> list[float]:
    """FLOPs a token of training the variants of each layer, attention scores left out."""

    def flops(option: Option, own: BlockOption) -> int:
        if isinstance(option, BlockOption):
            return 3 * sum(shape(config, half).token_flops() for half in option.halves)
        frozen = shape(config, own.ffn).token_flops() if isinstance(option, AttentionOption) else 0
        return 3 * shape(config, option).token_flops() + 2 * frozen

    return [
        float(sum(flops(option, own) for option in options))
        for options, own in zip(wanted, parent, strict=True)
    ]


def groups(
    model: PuzzleForCausalLM,
    layers: Sequence[object],
    config: DistillConfig,
    relay: Relay | None = None,
) -> list[list[int]]:
    """Layers whose variants are trained as one batched problem, all layers in order.

    They follow each other, the parent's halves have the same shapes in all of them, and they
    belong to one process.
    """
    starts = {own.start for own in relay.layers} if relay else set()
    blocks = model.config.blocks
    size = config.group
    if size is None:
        # Measured nowhere to pay on a CPU, whose kernels start at once.
        narrow = model.device.type == "cuda"
        size = max(1, GROUP_WEIGHTS // model.config.hidden_size**2) if narrow else 1
    found: list[list[int]] = []
    for layer in range(len(layers)):
        last = found[-1] if found else []
        fits = last and len(last) < size and layer not in starts
        if fits and blocks[last[0]] == blocks[layer]:
            last.append(layer)
        else:
            found.append([layer])
    return found


def _options(wanted: Sequence[Sequence[Option]], group: Sequence[int]) -> list[Option]:
    """Every variant of some of the layers once."""
    return list(dict.fromkeys(option for layer in group for option in wanted[layer]))


def _lacking(
    library: Library, wanted: Sequence[Sequence[Option]], group: Sequence[int], option: Option
) -> bool:
    layers = [layer for layer in group if option in wanted[layer]]
    return any(library.record(layer, option) is None for layer in layers)
