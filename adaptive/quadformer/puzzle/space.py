"""The search space: halves of blocks, and the sizes that each may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive.quadformer.puzzle.settings import SpaceConfig

ATTENTION, MLP = "attention", "mlp"
# The parameters of either half of a block, by the beginning of their names.
HALVES = {ATTENTION: ("attn.", "norm1.", "ls1."), MLP: ("mlp.", "norm2.", "ls2.")}


@dataclass(frozen=True)
class Group:
    """Half a block and what it may be.

    Attributes:
        block: index.
        half: "attention" or "mlp".
        sizes: heads, or the MLP's width; the parent's first, then smaller, 0 for none.
    """

    block: int
    half: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """For tables and pictures."""
        return f"block {self.block} {self.half}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the sizes."""
        unit = "heads" if self.half == ATTENTION else "wide"
        return tuple(f"{size} {unit}" if size else "none" for size in self.sizes)

    @property
    def variants(self) -> tuple[int, ...]:
        """The sizes that need weights of their own: neither the parent's nor none."""
        return tuple(size for size in self.sizes[1:] if size)


def search_space(sizes: Sequence[Sequence[int]], config: SpaceConfig) -> list[Group]:
    """The groups of a ViT, attention before MLP, block by block.

    Args:
        sizes: heads and width of the MLP of each of the parent's blocks; of a half that the parent
            itself lacks nothing is to be chosen.
        config: shares of these.
    """
    groups = []
    for block, (heads, width) in enumerate(sizes):
        fewer = [round(share * heads) for share in config.heads]
        narrower = [
            round(share * width / config.multiple) * config.multiple for share in config.mlp
        ]
        groups.append(Group(block, ATTENTION, _ladder(heads, fewer, config.no_op)))
        groups.append(Group(block, MLP, _ladder(width, narrower, config.no_op)))
    return groups


def block_sizes(space: Sequence[Group], choice: Sequence[int]) -> list[list[int]]:
    """What a choice makes of each block: heads and width of the MLP, as ``model.blocks`` says it.

    Args:
        space: groups.
        choice: index of an option of each.
    """
    chosen = [group.sizes[k] for group, k in zip(space, choice, strict=True)]
    return [list(pair) for pair in zip(chosen[::2], chosen[1::2], strict=True)]


def _ladder(own: int, smaller: Sequence[int], no_op: bool) -> tuple[int, ...]:
    sizes = {size for size in smaller if 0 < size < own} | ({0} if no_op else set())
    return (own, *sorted(sizes - {own}, reverse=True))
