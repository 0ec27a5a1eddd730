"""Makes other libraries know this one's models, without importing them.

Neither transformers nor timm has an entry point for plug-ins, and ``import adaptive`` is to stay
quick. So each registration waits until something imports the other library's model registry.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# A library's registry, and the module of ours that registers with it while it is imported.
PLUGINS = {
    "transformers.models.auto.modeling_auto": "adaptive.llm_puzzle.modeling_puzzle",
    "timm.models": "adaptive.quadformer.entrypoints",
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds a registry as usual, once, and registers with it when it has been executed."""

    def __init__(self, registry: str):
        self.registry = registry

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.registry:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(self.registry)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register(registry: str) -> None:
    # Our module registers as it is executed; while it is being imported (it loads the registry on
    # the way) there is nothing to do but let it get there.
    if PLUGINS[registry] not in sys.modules:
        importlib.import_module(PLUGINS[registry])


def install() -> None:
    """Registers now where a registry is loaded, else as soon as it will be."""
    waiting = {finder.registry for finder in sys.meta_path if isinstance(finder, _AfterImport)}
    for registry in PLUGINS:
        if registry in sys.modules:
            _register(registry)
        elif registry not in waiting:
            sys.meta_path.insert(0, _AfterImport(registry))
