"""Priors from text, such as ``"0.5*centre + 0.5*feature"``.

The grammar is Python's, of which numbers, names of priors, calls of them with settings, ``+``,
``*``, ``**`` with a number, and parentheses are taken. No code is evaluated.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.prior.base import PRIORS, Prior
from adaptive.core.prior.combine import CombinedPrior, Formula, Operation, Part
from adaptive.core.run import file_marks

SYMBOLS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Mult: "*", ast.Pow: "**"}


def build_prior(
    expression: str,
    *,
    alpha: float | None = None,
    offers: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Prior:
    """Makes a prior from an expression of registered names.

    Args:
        expression: a name, ``"gain"``; a name with settings, ``"entropy(bins=64)"``; or a formula
            of both, ``"gain**0.5 * (centre + 0.2)"`` (:class:`CombinedPrior`).
        alpha: exponent of the area in the score of the whole expression; None: the prior's own,
            and of a formula that of its parts if they agree, else 1.
        offers: as ``settings``, of which no prior has to take any: what a caller has at hand.
        settings: keyword arguments for every prior of the expression that takes them, such as a
            ``vit``, which text cannot hold. Those in the text come first.

    Raises:
        UserError: text that is no such expression, with the place; unknown names or settings.
    """
    reader = _Reader(expression, {**(offers or {}), **settings})
    root = reader.tree()
    if isinstance(root, ast.Name | ast.Call):
        prior = reader.prior(root, {} if alpha is None else {"alpha": alpha})
    else:
        formula = reader.formula(root)
        if not reader.parts:
            raise reader.error(root, f"names no prior: choose of {', '.join(sorted(PRIORS))}")
        prior = CombinedPrior(formula, list(reader.parts.values()), alpha=alpha)
    unused = sorted(settings.keys() - reader.used)
    if unused:
        raise reader.error(root, f"no prior here takes the setting {unused[0]!r}: leave it out")
    return prior


def prior_identity(expression: str | None) -> list[Any] | None:
    """What decides the scores of :func:`build_prior`, for the stages that depend on them.

    Args:
        expression: of a prior; None: there is none.

    Returns:
        The expression, and path, size and time of every file that its priors read
        (:meth:`Prior.files`); the same as long as these stay as they are. None where there is none.

    Raises:
        UserError: text that is no expression, or files that are not there.
    """
    if expression is None:
        return None
    reader = _Reader(expression, {})
    files: set[Path] = set()
    for node in ast.walk(reader.tree()):
        if isinstance(node, ast.Call):  # a name alone names no files
            kind, written = reader.call(node)
            files |= set(kind.files(**written))
    return [expression, file_marks(files)]


class _Reader:
    """Turns an expression's syntax tree into priors and a formula of them.

    Attributes:
        parts: priors by how they are written, so that one written twice is computed once.
        used: names of the shared settings that a prior has taken.
    """

    def __init__(self, text: str, settings: dict[str, Any]):
        self.text, self.settings = text, settings
        self.parts: dict[str, Prior] = {}
        self.used: set[str] = set()

    def error(self, node: ast.AST | int, message: str) -> UserError:
        """An error at a node or a column, from 0."""
        column = node if isinstance(node, int) else getattr(node, "col_offset", 0)
        return UserError(f"prior={self.text!r}, column {max(column, 0) + 1}: {message}")

    def tree(self) -> ast.expr:
        if not self.text.strip():
            raise self.error(0, f"names no prior: choose of {', '.join(sorted(PRIORS))}")
        # Leading blanks would be an indent; in parentheses they are not, and one column is theirs.
        try:
            root = ast.parse(f"({self.text})", mode="eval").body
        except (SyntaxError, ValueError) as error:
            column = min(max((getattr(error, "offset", None) or 2) - 2, 0), len(self.text))
            message = "is no expression of priors, such as 'gain * centre'"
            raise self.error(column, message) from None
        for node in ast.walk(root):
            if isinstance(node, ast.expr):
                node.col_offset -= 1
        return root

    def formula(self, node: ast.expr) -> Formula:
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.Name | ast.Call):
            key = ast.dump(node)
            if key not in self.parts:
                self.parts[key] = self.prior(node, {})
            return Part(list(self.parts).index(key))
        if isinstance(node, ast.BinOp) and type(node.op) in SYMBOLS:
            if isinstance(node.op, ast.Pow) and not isinstance(node.right, ast.Constant):
                raise self.error(node.right, "an exponent must be a number that is not negative")
            left, right = self.formula(node.left), self.formula(node.right)
            return Operation(SYMBOLS[type(node.op)], left, right)
        raise self.error(
            node, "only +, *, ** with a number, numbers that are not negative, and priors are taken"
        )

    def number(self, node: ast.Constant) -> float:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(node, f"{value!r} is neither a number nor the name of a prior")
        if not math.isfinite(value):
            raise self.error(node, f"{value} is not finite")
        return float(value)

    def prior(self, node: ast.expr, given: dict[str, Any]) -> Prior:
        """The prior that a name or a call stands for; ``given`` settings outdo shared ones."""
        kind, written = self.call(node)
        taken = inspect.signature(kind).parameters
        shared = {name: self.settings[name] for name in taken if name in self.settings}
        self.used |= shared.keys()
        settings = shared | given | written
        for name, parameter in taken.items():
            if parameter.default is parameter.empty and name not in settings:
                named = node.func if isinstance(node, ast.Call) else node
                raise self.error(node, f"{ast.unparse(named)} needs the setting {name}=...")
        return kind(**settings)

    def call(self, node: ast.expr) -> tuple[type[Prior], dict[str, Any]]:
        """The kind of prior that a name or a call is of, and the settings that are written."""
        named = node.func if isinstance(node, ast.Call) else node
        if not isinstance(named, ast.Name):
            raise self.error(node, "only priors can be called, by their names")
        if named.id not in PRIORS:
            raise self.error(node, PRIORS.unknown(named.id))
        kind = PRIORS[named.id]
        if not isinstance(node, ast.Call):
            return kind, {}
        return kind, self.keywords(node, named.id, list(inspect.signature(kind).parameters))

    def keywords(self, node: ast.Call, name: str, taken: list[str]) -> dict[str, Any]:
        """The settings in a call."""
        if node.args:
            raise self.error(node.args[0], f"{name} takes settings by name: {', '.join(taken)}")
        found = {}
        for keyword in node.keywords:
            if keyword.arg not in taken:
                raise self.error(
                    keyword.value,
                    f"{name} has no setting {keyword.arg!r}, choose of {', '.join(taken)}",
                )
            try:
                found[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                raise self.error(
                    keyword.value, f"{name}({keyword.arg}=...) must be a number or quoted text"
                ) from None
        return found
