"""A dictionary with a voice: names to things, and a helpful sentence for an unknown name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from adaptive.core.errors import UserError

T = TypeVar("T")

_ANNOUNCED: dict[str, dict[str, str]] = {}
"""What is to come: kind of a registry to name to the module that registers it."""


def announce(kind: str, name: str, module: str) -> None:
    """Makes a registry know a name whose module is imported when it is first looked up.

    So a family can offer a thing that is heavy to import, and need not import the registry either.

    Args:
        kind: of the registry, as in its messages.
        name: of the thing.
        module: registers it under that name when it is imported.
    """
    _ANNOUNCED.setdefault(kind, {})[name] = module


class Registry(Mapping[str, T], Generic[T]):
    """Maps names to implementations; ``kind`` is the word used for one of them in messages.

    >>> SOLVERS: Registry[type] = Registry("solver")
    >>> @SOLVERS.register("mip")
    ... class Mip: ...
    >>> SOLVERS["mip"].__name__
    'Mip'
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated thing under ``name``; names are taken once."""

        def add(item: T) -> T:
            if name in self._items:
                raise ValueError(f"{self.kind} {name!r} is already registered")
            self._items[name] = item
            return item

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._items and name in self._announced:
            importlib.import_module(self._announced[name])
        try:
            return self._items[name]
        except KeyError:
            raise UserError(self.unknown(name)) from None

    def unknown(self, name: str) -> str:
        """The sentence that says which names exist and which one was probably meant."""
        close = difflib.get_close_matches(name, list(self), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown {self.kind} {name!r}, choose one of {', '.join(sorted(self))}{hint}"

    @property
    def _announced(self) -> dict[str, str]:
        return _ANNOUNCED.get(self.kind, {})

    def __iter__(self) -> Iterator[str]:
        return iter({**self._items, **self._announced})

    def __len__(self) -> int:
        return len(self._items.keys() | self._announced.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._items or name in self._announced
