"""The command line: ``python -m adaptive.run +exp=NAME key=value``, or ``adaptive``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from adaptive.config import (
    free_settings,
    job_overrides,
    load,
    register,
    register_frame,
    validated,
)
from adaptive.core.errors import UserError
from adaptive.core.run import Experiment
from adaptive.core.run.commandline import FAILED, flags, single, told
from adaptive.core.run.launch.job import end_with_parent
from adaptive.core.run.ranks import no_teardown, rank_of_environment
from adaptive.core.run.sweep import SWEEP
from adaptive.launcher import ONE_RUN


@hydra.main(version_base="1.3", config_path="pkg://adaptive.conf", config_name="config")
def app(composed: DictConfig) -> None:
    """Runs one experiment in the directory that Hydra chose."""
    settings = HydraConfig.get()
    arguments = sys.argv[1:]
    directory = Path(os.path.relpath(settings.runtime.output_dir))
    command = f"python -m adaptive.run {shlex.join(arguments)}"

    def experiment() -> Experiment:
        return Experiment(validated(composed), command, job_overrides(settings))

    if settings.mode == RunMode.MULTIRUN:
        SWEEP.run(directory, experiment)
    else:
        with single(directory, command, arguments):
            experiment().run(directory)


def following(arguments: list[str]) -> None:
    """Takes part, as one of several processes, in the run that the main one directs."""
    sweeps = [a for a in arguments if a in ("-m", "--multirun") or a.startswith("cluster=")]
    if sweeps and ONE_RUN not in arguments:
        raise UserError(f"several processes share one run, not a sweep: leave {sweeps[0]} out")
    config_dir, others = own_recipes(arguments)
    names = [other for other in others if other.startswith("+exp=")]
    if not names:
        raise UserError("no experiment is named: add +exp=NAME")
    others = [other for other in others if other not in names]
    load(names[0].removeprefix("+exp="), *others, config_dir=config_dir).run()


def asks_help(arguments: list[str]) -> bool:
    """Whether the list of recipes is all that is asked for."""
    return own_recipes(arguments)[1] in (["--help"], ["-h"])


def own_recipes(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The directory of the user's recipes, and the other arguments."""
    where, others = flags(arguments)
    return (where[1] if where else None), others


def main() -> None:
    """Entry point of the console script ``adaptive``."""
    # OpenMP threads that spin while they wait for each other make a busy machine five times as
    # slow, and an idle one no faster. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    end_with_parent()
    arguments = sys.argv[1:]
    with no_teardown(), told(arguments):
        if rank_of_environment():
            following(arguments)
        else:
            SWEEP.begin(f"python -m adaptive.run {shlex.join(arguments)}", arguments)
            if asks_help(arguments):
                register_frame()  # for help Hydra copies all that it knows, 70 times
            else:
                register()
            free_settings(arguments, own_recipes(arguments)[0])
            app()
            if not SWEEP.finish():
                sys.exit(FAILED)


if __name__ == "__main__":
    main()
