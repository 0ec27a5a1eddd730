"""The shared language of the library: problems, budgets, solvers, costs, runs and reports.

This module is light (NumPy alone); OR-tools is imported by the search that needs it.
"""

from adaptive.core.budget import Budget, Cost, Limits
from adaptive.core.choice import Allocation, ChoiceProblem
from adaptive.core.errors import InfeasibleError, UserError
from adaptive.core.frontier import Frontier, FrontierPoint, frontier
from adaptive.core.registry import Registry
from adaptive.core.resource import RESOURCES, Resource, format_quantity, parse_quantity
from adaptive.core.solvers import SOLVERS, solve, solve_best
from adaptive.core.workload import Workload

__all__ = [
    "RESOURCES",
    "SOLVERS",
    "Allocation",
    "Budget",
    "ChoiceProblem",
    "Cost",
    "Frontier",
    "FrontierPoint",
    "InfeasibleError",
    "Limits",
    "Registry",
    "Resource",
    "UserError",
    "Workload",
    "format_quantity",
    "frontier",
    "parse_quantity",
    "solve",
    "solve_best",
]
