"""What the halves of blocks take on this device, by their size and the number of tokens.

The modules that a child will consist of are timed, in the precision and mode that it is measured
in, together with the whole parent and with what is left of it without blocks (prior, selection,
embedding, norm and head), in turns. No shipped table holds halves of ViT blocks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from adaptive.core.cost import MeasuredTable, RowKey
from adaptive.core.hardware import Clock, Subject, default_table_path, profile
from adaptive.core.run import digest
from adaptive.quadformer.evaluate import autocast
from adaptive.quadformer.latency import dtype_of, forward, model_key, random_images
from adaptive.quadformer.model import Quadformer
from adaptive.quadformer.puzzle.initialise import parent_half
from adaptive.quadformer.puzzle.settings import CostConfig
from adaptive.quadformer.puzzle.space import ATTENTION, Group
from adaptive.quadformer.puzzle.trace import Trace
from adaptive.quadformer.settings import EvaluateConfig

WHOLE, SHELL = "whole", "shell"


@dataclass(frozen=True)
class Costs:
    """Seconds of a forward of a batch at one number of tokens.

    Attributes:
        tokens: of each image.
        whole: of the parent.
        shell: of the parent without its blocks.
        seconds: by group and option.
        params: of the halves, by group and option.
    """

    tokens: int
    whole: float
    shell: float
    seconds: list[list[float]]
    params: list[list[int]]

    @property
    def scale(self) -> float:
        """What the whole parent takes over the sum of its parts."""
        return self.whole / (self.shell + sum(row[0] for row in self.seconds))

    def to_json(self) -> dict:
        return asdict(self)


def measure_costs(
    model: Quadformer,
    space: Sequence[Group],
    num_tokens: Sequence[int],
    clock: Clock,
    config: CostConfig,
    settings: EvaluateConfig,
    track: Callable[..., Any] | None = None,
) -> list[Costs]:
    """Times everything that the table lacks.

    Args:
        model: the parent, on the clock's device, its blocks slim.
        space: groups; halves of the same shape are measured once.
        num_tokens: of each image.
        clock: device and mode.
        config: time limit and table.
        settings: batch and precision.
        track: progress display.
    """
    table = MeasuredTable.open(
        config.table or default_table_path(clock.origin), clock.origin, mode=clock.mode
    )
    dtype, batch = dtype_of(model, clock.device, settings), settings.speed_batch
    names = _Names(model)
    image_BCHW = random_images(model, batch)
    shell = _without_blocks(model)
    subjects = []
    for tokens in num_tokens:
        calls: dict[str, Callable[[], Callable[[], Any]]] = {
            names(WHOLE): lambda n=tokens: lambda: forward(model, image_BCHW, n, settings),
            names(SHELL): lambda n=tokens: lambda: forward(shell, image_BCHW, n, settings),
        }
        for group in space:
            for size in filter(None, group.sizes):
                name = names(group.half, size)
                if name not in calls:
                    half = parent_half(model.vit.blocks[group.block], group, size)
                    calls[name] = _maker(model, half, group, image_BCHW, tokens, settings)
        subjects += [
            Subject(name, "prefill", batch, tokens, make, dtype) for name, make in calls.items()
        ]
    profile(
        subjects,
        table,
        clock,
        None if clock.device.startswith("cuda") else 1,
        target_spread=config.spread,
        max_seconds=config.seconds,
        track=track,
    )

    def seconds(name: str, tokens: int) -> float:
        return table[RowKey.of(name, "prefill", batch, tokens, dtype, clock.mode)].seconds

    params = [[_params(model, group, size) for size in group.sizes] for group in space]
    return [
        Costs(
            tokens,
            seconds(names(WHOLE), tokens),
            seconds(names(SHELL), tokens),
            [[seconds(names(g.half, s), tokens) if s else 0.0 for s in g.sizes] for g in space],
            params,
        )
        for tokens in num_tokens
    ]


@dataclass
class _Names:
    """Names in a table of times: of this model's structure; weights are nothing to them."""

    model: Quadformer

    def __post_init__(self) -> None:
        sizes = [block.size for block in self.model.vit.blocks]
        self._mark = digest([model_key(self.model), sizes])[:16]

    def __call__(self, part: str, size: int = 0) -> str:
        return f"puzzle_vit-{part}{size or ''}-{self._mark}"


def _maker(
    model: Quadformer,
    half: Any,
    group: Group,
    image_BCHW: Tensor,
    tokens: int,
    settings: EvaluateConfig,
) -> Callable[[], Callable[[], Any]]:
    """Makes the call of half a block, on tokens as the parent has them."""

    def make() -> Callable[[], Any]:
        device = str(image_BCHW.device)
        with torch.no_grad(), autocast(device, settings.amp):
            trace = Trace(model, image_BCHW, tokens)
        x_BLD, extras = trace.enters(group.block), trace.extras[group.block]

        def call() -> Tensor:
            with autocast(device, settings.amp):
                return half.attend(x_BLD, **extras) if group.half == ATTENTION else half.feed(x_BLD)

        return call

    return make


def _without_blocks(model: Quadformer) -> Quadformer:
    bare = copy.deepcopy(model)
    bare.vit.blocks = torch.nn.Sequential()
    return bare


def _params(model: Quadformer, group: Group, size: int) -> int:
    if not size:
        return 0
    half = parent_half(model.vit.blocks[group.block], group, size)
    return sum(weight.numel() for weight in half.parameters())
