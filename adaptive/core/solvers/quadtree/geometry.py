"""Where the nodes of an image's quadtree lie. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from jaxtyping import Int

from adaptive.core.errors import UserError

MAX_LEVELS = 8


@dataclass(frozen=True)
class Geometry:
    """A forest of quadtrees over an image: square roots that may split into four, and so on.

    Nodes are numbered level by level, coarse ones first, and row by row within a level. So nodes
    that may split come before the finest, which may not, and a parent before its children.

    Attributes:
        height, width: of the image in pixels, multiples of ``max_patch``.
        min_patch: side of the finest patches in pixels.
        max_patch: side of the roots in pixels, ``min_patch`` times a power of two.

    Raises:
        UserError: sides that do not tile or are not powers of two apart.
    """

    height: int
    width: int
    min_patch: int = 16
    max_patch: int = 64

    def __post_init__(self) -> None:
        if self.min_patch < 1 or self.max_patch < self.min_patch:
            raise UserError(
                f"min_patch={self.min_patch} and max_patch={self.max_patch}: give sides in pixels, "
                "the larger as max_patch"
            )
        ratio, rest = divmod(self.max_patch, self.min_patch)
        if rest or ratio & (ratio - 1) or ratio >= 2**MAX_LEVELS:
            raise UserError(
                f"max_patch={self.max_patch} must be min_patch={self.min_patch} times a power of "
                f"two, at most {2 ** (MAX_LEVELS - 1)}"
            )
        if self.height < 1 or self.width < 1:
            raise UserError(f"an image of {self.height} x {self.width} pixels is empty")
        if self.height % self.max_patch or self.width % self.max_patch:
            up = [-(-side // self.max_patch) * self.max_patch for side in (self.height, self.width)]
            down = [max(1, side // self.max_patch) * self.max_patch for side in self.size]
            raise UserError(
                f"an image of {self.height} x {self.width} pixels is not tiled by patches of "
                f"{self.max_patch}: resize it to {down[0]} x {down[1]} or pad it to "
                f"{up[0]} x {up[1]}, or choose another max_patch"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    # Cheap, hence not cached: Python 3.11 caches behind a lock, which torch.compile cannot trace.

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of a patch of each level in pixels, coarse to fine."""
        levels = (self.max_patch // self.min_patch).bit_length()
        return tuple(self.max_patch >> level for level in range(levels))

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level, coarse to fine."""
        return tuple((self.height // side, self.width // side) for side in self.sides)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Number of the first node of each level, and the number of all nodes."""
        return tuple(accumulate((rows * cols for rows, cols in self.shapes), initial=0))

    @property
    def nodes(self) -> int:
        """Nodes of all levels."""
        return self.offsets[-1]

    @property
    def splittable(self) -> int:
        """Nodes that may split: all but the finest. They come first."""
        return self.offsets[-2]

    @property
    def roots(self) -> int:
        """Patches of the coarsest grid, the least number of tokens."""
        return self.offsets[1]

    @property
    def cells(self) -> int:
        """Patches of the finest grid, the largest number of tokens."""
        return self.nodes - self.splittable

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the finest grid."""
        return self.shapes[-1]

    def splits(self, tokens: int) -> int:
        """How many nodes split for an image to have so many leaves.

        Raises:
            UserError: a number that no quadtree here has; its feasible neighbours are named.
        """
        if tokens == self.roots or (
            self.roots < tokens <= self.cells and (tokens - self.roots) % 3 == 0 and self.splittable
        ):
            return (tokens - self.roots) // 3
        near = sorted({self.nearest(tokens - 2), self.nearest(tokens + 2)})
        raise UserError(
            f"num_tokens={tokens} is not feasible for {self.height} x {self.width} pixels in "
            f"patches of {self.max_patch} to {self.min_patch}: each split adds 3 to "
            f"{self.roots}, up to {self.cells}; choose {' or '.join(map(str, near))}"
        )

    def nearest(self, tokens: float) -> int:
        """The feasible number of leaves nearest to ``tokens``, the smaller one of two."""
        if not self.splittable:
            return self.roots
        splits = int(np.ceil((tokens - self.roots) / 3 - 0.5))
        return self.roots + 3 * min(max(splits, 0), self.splittable)

    def feasible(self) -> range:
        """All feasible numbers of leaves."""
        return range(self.roots, self.cells + 1, 3)

    @cached_property
    def parents(self) -> Int[np.ndarray, " nodes"]:
        """Each node's parent; -1 for roots."""
        parts = [np.full(self.roots, -1)]
        for level in range(1, len(self.sides)):
            (rows, cols), above = self.shapes[level], self.shapes[level - 1][1]
            row, col = np.indices((rows, cols)) // 2
            parts.append((self.offsets[level - 1] + row * above + col).ravel())
        return np.concatenate(parts)

    @cached_property
    def roots_above(self) -> Int[np.ndarray, " nodes"]:
        """Each node's root; a root's is itself."""
        root = np.arange(self.nodes)
        for first, last in zip(self.offsets[1:], self.offsets[2:], strict=False):
            root[first:last] = root[self.parents[first:last]]
        return root

    @cached_property
    def levels(self) -> Int[np.ndarray, " nodes"]:
        """Each node's level, 0 for roots."""
        return np.repeat(np.arange(len(self.sides)), np.diff(self.offsets))

    @cached_property
    def boxes(self) -> Int[np.ndarray, "nodes 3"]:
        """Each node's top row, left column and side in pixels."""
        parts = []
        for side, (rows, cols) in zip(self.sides, self.shapes, strict=True):
            row, col = np.indices((rows, cols)) * side
            parts.append(np.stack([row, col, np.full_like(row, side)], -1).reshape(-1, 3))
        return np.concatenate(parts)
