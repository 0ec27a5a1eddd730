"""Solvers of the choice problem behind one function; see :func:`adaptive.core.solve`."""

from adaptive.core.solvers import exhaustive, greedy, lagrangian, mip  # noqa: F401 (register)
from adaptive.core.solvers.program import SOLVERS
from adaptive.core.solvers.search import solve, solve_best

__all__ = ["SOLVERS", "solve", "solve_best"]
