"""The bridge from Hydra's sweeps to our launchers: each run becomes a command of its own.

Hydra's published launchers send the function of the application, pickled, to other processes. Ours
need nothing pickled: a run is known by its command and its directory, so it can be run anywhere,
by torchrun too, and one that crashes takes no other with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, open_dict

from adaptive.core.run import Experiment
from adaptive.core.run.commandline import flags
from adaptive.core.run.launch import LAUNCHERS, LauncherConfig
from adaptive.core.run.launch.job import Job, command, this_program
from adaptive.core.run.launch.run import run_jobs
from adaptive.core.run.sweep import SWEEP, hydra_value
from hydra_plugins.adaptive_launcher import CommandLauncher

PLUGIN = f"{CommandLauncher.__module__}.{CommandLauncher.__qualname__}"

# The command or its recipe chooses a cluster, and then each run would be a sweep of its own. The
# choice itself stays: a recipe's settings of a launcher fit no other.
ONE_RUN = "hydra.mode=RUN"

# Overrides that the launching process needs and its runs do not.
OF_THE_SWEEP = ("hydra.mode", "hydra.run", "hydra.sweep.")


def register_launchers() -> None:
    """Makes every launcher a choice of the group ``hydra/launcher``."""
    # First, as a published plug-in may store a launcher of the same name. Hydra looks for plug-ins
    # in directories, and so finds none of an editable installation.
    Plugins.instance().register(CommandLauncher)
    store = ConfigStore.instance()
    for name in LAUNCHERS:
        node = OmegaConf.structured(LAUNCHERS[name][0])
        with open_dict(node):
            node["_target_"] = PLUGIN
        store.store(group="hydra/launcher", name=name, node=node, provider="adaptive")


def checked(settings: Mapping[str, Any]) -> LauncherConfig:
    """The settings of a launcher, as Hydra composed them, as its dataclass.

    Raises:
        UserError: one of them is wrong.
    """
    schema = OmegaConf.structured(LAUNCHERS[settings["kind"]][0])
    launcher = OmegaConf.to_object(OmegaConf.merge(schema, dict(settings)))
    assert isinstance(launcher, LauncherConfig)
    launcher.validate()
    return launcher


def launch(
    jobs: Sequence[tuple[list[str], DictConfig]], launcher: LauncherConfig, hydra: Sequence[str]
) -> None:
    """Runs the jobs of a sweep that are not done.

    Args:
        jobs: overrides and composed configuration of each, Hydra's own part included.
        launcher: its settings.
        hydra: overrides of Hydra's part.

    Raises:
        UserError: the launcher does not work here, or two runs have one directory.
    """
    where, _ = flags(SWEEP.arguments)
    shared = [override for override in hydra if not override.startswith(OF_THE_SWEEP)]
    wanted: dict[Path, Job] = {}
    SWEEP.expected = (SWEEP.expected or 0) + len(jobs)  # a sweeper may launch in batches
    for overrides, composed in jobs:
        home = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir)
        directory = Path(os.path.relpath(home))
        if SWEEP.wanted(directory, lambda c=composed: _experiment(c)) is None:
            continue
        place = f"hydra.run.dir={hydra_value(str(directory))}"
        arguments = [*where, *overrides, *shared, ONE_RUN, place]
        wanted[directory] = Job(
            str(directory), command(this_program(), arguments, launcher.processes)
        )
    run_jobs(wanted, launcher, SWEEP)


def _experiment(composed: DictConfig) -> Experiment:
    from adaptive.config import validated  # which imports this module

    task = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    return Experiment(validated(task))
