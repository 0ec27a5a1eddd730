"""Names of a package that are imported when they are first used.

So a family has a flat public face, while its configuration is composed without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names live in modules below it.

    >>> __getattr__, __dir__ = lazy(__name__, {"Quadformer": "model"})

    A name must not be that of a module of the package: importing the module would put it there.

    Args:
        package: its ``__name__``.
        homes: public name to the module that defines it, relative to the package.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
