"""Quadtrees the plain way, node by node, to test the sorts against."""

from __future__ import annotations

import heapq

import numpy as np

from adaptive.core.solvers.quadtree import Geometry


def children(geometry: Geometry) -> list[list[int]]:
    """The four children of each node, ascending; none of the finest."""
    found: list[list[int]] = [[] for _ in range(geometry.nodes)]
    for node, parent in enumerate(geometry.parents):
        if parent >= 0:
            found[parent].append(node)
    return found


def heap_order(score_S: np.ndarray, geometry: Geometry) -> list[int]:
    """Nodes in the order in which best-first search splits them."""
    below = children(geometry)
    heap = [(-score_S[node], node) for node in range(min(geometry.roots, geometry.splittable))]
    heapq.heapify(heap)
    order = []
    while heap:
        _, node = heapq.heappop(heap)
        order.append(node)
        for child in below[node]:
            if child < geometry.splittable:
                heapq.heappush(heap, (-score_S[child], child))
    return order


def heap_leaves(order: list[int], splits: int, geometry: Geometry) -> list[int]:
    """Leaves after the first splits of an order, ascending."""
    below, leaves = children(geometry), set(range(geometry.roots))
    for node in order[:splits]:
        leaves.remove(node)
        leaves.update(below[node])
    return sorted(leaves)


def best_gain(gain_S: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The largest summed gain of any quadtrees with so many splits, [splittable + 1].

    (max,+) dynamic programming from the finest nodes that may split up to the roots.
    """
    below = children(geometry)

    def join(tables: list[np.ndarray]) -> np.ndarray:
        total = np.zeros(1)
        for table in tables:
            sums = np.full(len(total) + len(table) - 1, -np.inf)
            for splits, value in enumerate(table):
                part = sums[splits : splits + len(total)]
                np.maximum(part, total + value, out=part)
            total = sums
        return total

    best: dict[int, np.ndarray] = {}
    for node in reversed(range(geometry.splittable)):
        inner = join([best[child] for child in below[node] if child < geometry.splittable])
        best[node] = np.concatenate([[0.0], gain_S[node] + inner])
    return join([best[root] for root in range(min(geometry.roots, geometry.splittable))])
