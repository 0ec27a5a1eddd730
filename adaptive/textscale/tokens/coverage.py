"""How many tokens an image needs until every word is shown well enough to be read.

A quadtree's leaf of any side is shown in as few pixels as the finest one. So a word of height h in
leaves of side a has ``h * finest / a`` pixels of height left, and there is a coarsest side at which
it is still legible. A word is *covered* once enough of its area lies in leaves no coarser than
that. This needs no network: it bounds what any network can read from so many tokens.

Shapes: N words, S nodes that may split, K pairs of a word and a node of the side that it needs,
4 corners, 2 coordinates in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from adaptive.core.solvers.quadtree import Geometry
from adaptive.textscale.evaluate.icdar import areas, polygons
from adaptive.textscale.words import Words, short_sides


@dataclass(frozen=True)
class Needs:
    """What it takes to show the words of an image.

    Attributes:
        geometry: of the image.
        care_N: words that count: cared about, with an area, and in the image.
        height_N: their short sides in pixels, of all words.
        word_K: number of a word, ascending.
        node_K: a node that holds a part of it, of the coarsest side at which the word is legible,
            or the finest where none is.
        share_K: of the word's area in the image that lies in the node; they add up to 1.
    """

    geometry: Geometry
    care_N: Bool[ndarray, " N"]
    height_N: Float[ndarray, " N"]
    word_K: Int[ndarray, " K"]
    node_K: Int[ndarray, " K"]
    share_K: Float[ndarray, " K"]

    @staticmethod
    def of(words: Words, geometry: Geometry, legible: float) -> Needs:
        """The needs of an image's words.

        Args:
            words: in pixels of the image that the geometry is of.
            geometry: of the image.
            legible: height in pixels at which a word must be shown.
        """
        shape_N, height_N = polygons(words.quad_N42), short_sides(words.quad_N42)
        side_N = coarsest_sides(height_N, geometry, legible)
        words_K, nodes_K, areas_K = [], [], []
        for level, side in enumerate(geometry.sides):
            here_n = np.flatnonzero(words.care_N & ~shapely.is_missing(shape_N) & (side_N == side))
            if not len(here_n):
                continue
            first, end = geometry.offsets[level : level + 2]
            top, left, _ = geometry.boxes[first:end].T
            box_V = shapely.box(left, top, left + side, top + side)
            pair_k, node_k = shapely.STRtree(box_V).query(shape_N[here_n])
            area_k = areas(shapely.intersection(shape_N[here_n[pair_k]], box_V[node_k]))
            words_K.append(here_n[pair_k])
            nodes_K.append(node_k + first)
            areas_K.append(area_k)
        word_K, node_K, area_K = (
            np.concatenate([np.zeros(0, kind), *parts])
            for parts, kind in ((words_K, int), (nodes_K, int), (areas_K, float))
        )
        keep_K = area_K > 0  # a box that a word only touches shows nothing of it
        order_K = np.flatnonzero(keep_K)[np.argsort(word_K[keep_K], kind="stable")]
        word_K, node_K, area_K = word_K[order_K], node_K[order_K], area_K[order_K]
        total_N = np.bincount(word_K, area_K, minlength=len(words))
        return Needs(geometry, total_N > 0, height_N, word_K, node_K, area_K / total_N[word_K])

    def worth_S(self) -> Float[ndarray, " S"]:
        """Of splitting each node, to one who knows the words.

        Each word that counts is worth 1, in equal parts for all splits that it needs: words that
        need few splits come first, and splits that several need before those of one. A node is
        worth at least as much as any below it.
        """
        worth_S, parents = np.zeros(self.geometry.splittable), self.geometry.parents
        for word in np.flatnonzero(self.care_N):
            wanted: set[int] = set()
            above = set(parents[self.node_K[self.word_K == word]].tolist()) - {-1}
            while above:
                wanted |= above
                above = set(parents[list(above)].tolist()) - {-1}
            worth_S[list(wanted)] += 1 / max(1, len(wanted))
        return worth_S

    def tokens_N(self, rank_S: Int[ndarray, " S"], whole: float) -> Int[ndarray, " N"]:
        """With how many tokens each word is covered; -1 for words that do not count.

        Args:
            rank_S: the step at which each node is split, from 0.
            whole: share of a word's area that must be shown, above 0 to 1.
        """
        parent_K = self.geometry.parents[self.node_K]
        splits_K = np.where(parent_K < 0, 0, rank_S[parent_K] + 1)
        order_K = np.lexsort((splits_K, self.word_K))
        word_K, splits_K = self.word_K[order_K], splits_K[order_K]
        shown_K = np.cumsum(self.share_K[order_K])
        # Words come one after the other, and the shares of each add up to 1.
        before_K = np.searchsorted(np.unique(word_K), word_K)
        enough_K = shown_K - before_K >= whole - 1e-6
        splits_N = np.full(len(self.care_N), np.iinfo(np.int64).max)
        np.minimum.at(splits_N, word_K[enough_K], splits_K[enough_K])
        return np.where(self.care_N, self.geometry.roots + 3 * splits_N, -1)


def coarsest_sides(
    height_N: Float[ndarray, " N"], geometry: Geometry, legible: float
) -> Int[ndarray, " N"]:
    """The coarsest side of leaves that leaves words legible, in pixels; else the finest.

    Args:
        height_N: of words, in pixels of the image.
        geometry: of the image.
        legible: height in pixels at which a word must be shown.
    """
    side_N = np.full(len(height_N), geometry.min_patch)
    for side in geometry.sides[::-1]:
        side_N[height_N * geometry.min_patch >= legible * side] = side
    return side_N
