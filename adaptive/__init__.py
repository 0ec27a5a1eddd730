"""Budgeted compute: spend a fixed budget where it pays most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptive import _plugin
from adaptive._version import __version__

if TYPE_CHECKING:
    from adaptive.core.run import Experiment

__all__ = ["__version__", "load"]


def load(name: str, *overrides: str, config_dir: str | None = None) -> Experiment:
    """The experiment that ``python -m adaptive.run +exp=NAME OVERRIDES`` runs.

    >>> adaptive.load("puzzle_tiny", "budget.latency=0.6x").run()

    Args:
        name: a recipe, the name of a file in ``experiments/exp``.
        overrides: ``key=value`` in Hydra's syntax, as on the command line.
        config_dir: a directory of your own whose ``exp/`` holds further recipes.

    Raises:
        UserError: an unknown recipe or key, or a value of the wrong type.
    """
    from adaptive.config import load

    return load(name, *overrides, config_dir=config_dir)


_plugin.install()
