"""Errors of the user, as opposed to errors of the library."""

from __future__ import annotations


class UserError(ValueError):
    """Something only the user can mend, told in one sentence.

    The message names the setting (or file) and the mend. The command line prints it without a
    traceback and exits with a non-zero code; invariants of the library use ``assert`` instead.
    """


class InfeasibleError(UserError):
    """No choice of options meets the budget.

    Attributes:
        resource: name of a resource whose limit cannot be met.
        limit: the limit asked for, in the resource's unit.
        reachable: the nearest value that some choice of options does reach while it meets all
            other limits (the smallest cost for an upper limit, the largest for a lower one).
    """

    def __init__(self, message: str, *, resource: str, limit: float, reachable: float):
        super().__init__(message)
        self.resource = resource
        self.limit = limit
        self.reachable = reachable
