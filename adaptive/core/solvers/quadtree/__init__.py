"""Quadtree allocation: which regions of an image get fine patches, on torch tensors.

A quadtree under a budget of leaves is a choice problem whose groups are the roots and whose options
are the trees below each (:func:`choice_problem`). Here it is solved for whole batches by sorting.
"""

from adaptive.core.solvers.quadtree.geometry import Geometry
from adaptive.core.solvers.quadtree.leaves import Leaves, RaggedLeaves
from adaptive.core.solvers.quadtree.order import SplitOrder, batch_leaves, path_min, split_order
from adaptive.core.solvers.quadtree.problem import allocate, choice_problem

__all__ = [
    "Geometry",
    "Leaves",
    "RaggedLeaves",
    "SplitOrder",
    "allocate",
    "batch_leaves",
    "choice_problem",
    "path_min",
    "split_order",
]
