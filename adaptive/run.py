"""The command line: ``python -m adaptive.run +exp=NAME key=value``, or ``adaptive``."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from adaptive.config import free_settings, load, register, validated
from adaptive.core.errors import UserError
from adaptive.core.run import Experiment
from adaptive.core.run.commandline import job, told
from adaptive.core.run.ranks import no_teardown, rank_of_environment


@hydra.main(version_base="1.3", config_path="pkg://adaptive.conf", config_name="config")
def app(composed: DictConfig) -> None:
    """Runs one experiment in the directory that Hydra chose."""
    settings = HydraConfig.get()
    arguments = sys.argv[1:]
    directory = Path(os.path.relpath(settings.runtime.output_dir))
    command = f"python -m adaptive.run {shlex.join(arguments)}"
    with job(directory, command, arguments, sweep=settings.mode == RunMode.MULTIRUN):
        Experiment(validated(composed), command).run(directory)


def following(arguments: list[str]) -> None:
    """Takes part, as one of several processes, in the run that the main one directs."""
    if {"-m", "--multirun"} & set(arguments):
        raise UserError("several processes share one run, not a sweep: leave --multirun out")
    config_dir, others = _config_dir(arguments)
    names = [other for other in others if other.startswith("+exp=")]
    if not names:
        raise UserError("no experiment is named: add +exp=NAME")
    others = [other for other in others if other not in names]
    load(names[0].removeprefix("+exp="), *others, config_dir=config_dir).run()


def _config_dir(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The user's recipes, and the other arguments."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config-dir", "-cd")
    known, others = flags.parse_known_args(arguments)
    return known.config_dir, others


def main() -> None:
    """Entry point of the console script ``adaptive``."""
    # OpenMP threads that spin while they wait for each other make a busy machine five times as
    # slow, and an idle one no faster. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    with no_teardown(), told(sys.argv[1:]):
        if rank_of_environment():
            following(sys.argv[1:])
        else:
            register()
            free_settings(sys.argv[1:], _config_dir(sys.argv[1:])[0])
            app()


if __name__ == "__main__":
    main()
