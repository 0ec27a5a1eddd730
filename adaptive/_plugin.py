"""Makes transformers know this library's models, without importing transformers.

transformers has no entry point for plug-ins, and ``import adaptive`` is to stay quick. So the
registration waits until something imports transformers' model registry.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRY = "transformers.models.auto.modeling_auto"
MODEL = "adaptive.llm_puzzle.modeling_puzzle"


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the registry as usual, once, and registers with it when it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    # The model's module registers itself at its end; while it is being imported (transformers
    # loads its registry on the way) there is nothing to do but let it get there.
    if MODEL not in sys.modules:
        importlib.import_module(MODEL)


def install() -> None:
    """Registers now if transformers' registry is loaded, else as soon as it will be."""
    if REGISTRY in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
