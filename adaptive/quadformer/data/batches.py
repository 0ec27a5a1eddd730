"""Which images a step sees: a function of the seed and the step, so nothing has to be saved.

Shapes: B images of this process's part of a batch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from adaptive.core.run.seed import stage_seed
from adaptive.quadformer.data.images import ImageSet

AHEAD = 2  # steps


@dataclass(frozen=True)
class Batch:
    """Images as they are stored, on the device.

    Attributes:
        pixel_B3HW: bytes.
        label_B: numbers of classes.
        map_B1hw: saliency maps, or None.
    """

    pixel_B3HW: UInt8[Tensor, "B 3 H W"]
    label_B: Int[Tensor, " B"]
    map_B1hw: Float[Tensor, "B 1 h w"] | None = None


@dataclass(frozen=True)
class Batches:
    """Batches of shuffled epochs; what is left of an epoch after its whole batches is not seen.

    Attributes:
        images: in the set.
        batch: images of a step, all processes together, a multiple of ``world``.
        seed: of the order.
        rank, world: this process and their number.
    """

    images: int
    batch: int
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        assert self.batch % self.world == 0 and self.images >= self.batch

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.images // self.batch

    def indices(self, step: int, device: torch.device | str = "cpu") -> Int[Tensor, " B"]:
        """Numbers of the images of this process at a step, from 0.

        A GPU gets an epoch's order once: a copy at every step would make the host wait for it.
        """
        epoch, number = divmod(step, self.per_epoch)
        order = _order(self.images, stage_seed(self.seed, f"epoch {epoch}"), str(device))
        begin = number * self.batch + self.rank * (self.batch // self.world)
        return order[begin : begin + self.batch // self.world]

    def generator(self, step: int, device: str) -> torch.Generator:
        """Random numbers of this process at a step, for augmentation."""
        seed = stage_seed(self.seed, f"step {step} of rank {self.rank}")
        return torch.Generator(device).manual_seed(seed)

    def tokens(self, step: int, choices: Sequence[int]) -> int:
        """One of several budgets, the same in all processes at a step."""
        return random.Random(f"{self.seed}/tokens/{step}").choice(choices)

    def read(self, images: ImageSet, steps: Iterable[int]) -> Iterator[tuple[int, Batch]]:
        """Steps with their batches; what lies on the disk is read two steps ahead.

        Args:
            images: the set.
            steps: numbers of the steps, ascending.
        """

        where = images.pixels.device if isinstance(images.pixels, Tensor) else "cpu"

        def load(step: int) -> tuple[int, Batch]:
            index_B = self.indices(step, where)
            pixel_B3HW, label_B = images.batch(index_B)
            return step, Batch(pixel_B3HW, label_B, images.maps(index_B))

        if isinstance(images.pixels, Tensor):
            yield from map(load, steps)
            return
        waiting: deque[Future[tuple[int, Batch]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for step in steps:
                waiting.append(pool.submit(load, step))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@lru_cache(maxsize=2)
def _order(images: int, seed: int, device: str) -> Tensor:
    # Drawn on the CPU, so that it is the same on every device.
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed)).to(device)
