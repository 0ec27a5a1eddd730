"""The runs of a part: what they are, and running them one after the other."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptive.core.collect.gather import Run
from adaptive.core.errors import UserError
from adaptive.core.frontiers.config import FrontiersConfig
from adaptive.core.run.atomic import flat, to_plain
from adaptive.core.run.directory import RunDir, made_on
from adaptive.core.run.environment import describe_device
from adaptive.core.run.experiment import Experiment
from adaptive.core.run.failure import explain, note_failure
from adaptive.core.run.lock import InUseError, holder, wait_until_free
from adaptive.core.run.manifest import digest
from adaptive.core.run.progress import say
from adaptive.core.run.ranks import Ranks
from adaptive.core.run.share import take_stages
from adaptive.core.run.sweep import hydra_value, label_of
from adaptive.core.run.task import TaskConfig

REFERENCE = "reference"


@dataclass(frozen=True)
class Child:
    """A run of a part.

    Attributes:
        name: tells it from the part's other runs.
        folder: its directory among the part's.
        budget: what it may spend, for people.
        experiment: what runs.
        mark: changes when any of its stages would do something else: with its settings, weights
            and data.
        reference: the others are held against it.
    """

    name: str
    folder: str
    budget: str
    experiment: Experiment
    mark: str
    reference: bool = False


def children(config: FrontiersConfig, name: str) -> list[Child]:
    """The runs of a part, its reference first.

    Raises:
        UserError: a mistake in the part's settings, or what they point to is not there.
    """
    part = config.wanted[name]
    found = []
    if part.reference.set is not None:
        found.append(_child(config, name, part.reference.set, REFERENCE))
    return [*found, *(_child(config, name, {part.over: value}) for value in part.values)]


def _child(
    config: FrontiersConfig, name: str, own: Mapping[str, Any], label: str | None = None
) -> Child:
    from adaptive import load  # which imports Hydra

    part = config.wanted[name]
    shared = [f"device={config.device}", f"seed={config.seed}", *overrides(part.set)]
    experiment = load(part.exp, *shared, *overrides(own), config_dir=config.config_dir)
    stages = [(stage.name, stage.depends_on) for stage in experiment.stages()]
    told = [f"{key}={value}" for key, value in flat(own).items()]
    known = label or label_of(told)
    return Child(
        known,
        f"{known}-{_mark(experiment.config)}" if config.runs else known,
        ", ".join(told),
        experiment,
        digest([experiment.config.name, stages]),
        label is not None,
    )


def _mark(config: TaskConfig) -> str:
    """Tells runs of other recipes, settings, seeds and devices apart that share a directory."""
    settings = to_plain(config)
    del settings["tracking"]  # changes no result
    return digest(settings)[:8]


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as Hydra's overrides; mappings within mappings are those of groups."""
    return [
        key if key.startswith("~") else f"{key}={_text(value)}"
        for key, value in flat(settings).items()
    ]


def _text(value: Any) -> str:
    return hydra_value(value) if isinstance(value, str) else json.dumps(value)


def run_children(
    found: Sequence[Child], home: Path, check: Callable[[Run], None] = lambda _: None
) -> tuple[dict[str, Run], dict[str, str]]:
    """Runs a part, or what is left of it, in this process.

    A run that was cut short resumes, one that is done looks whether its inputs have changed, and
    each takes over the stages that another has done just so. One that fails says why, in its
    ``status.json`` too unless an earlier attempt is done, and the others go on.

    Args:
        found: the runs.
        home: their directories are in it.
        check: gets each run that has ended well; what it raises ends the part.

    Returns:
        The runs that have ended well by name; names of those that failed, and why.
    """
    done, failed = {}, {}
    for count, child in enumerate(found, 1):
        directory = home / child.folder
        say(f"[{count}/{len(found)}] {directory}")
        try:
            summary = _run(child, directory, [home / other.folder for other in found])
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
            failed[child.name] = explain(error)
            say(f"error in {directory}: {failed[child.name]}")
            with contextlib.suppress(OSError):  # a full disk is told already
                note_failure(directory, failed[child.name])
        else:
            # As it ended: another launch that shares the directory may begin it anew.
            done[child.name] = replace(Run.read(directory), state="done", summary=summary)
            check(done[child.name])
    return done, failed


def _run(child: Child, directory: Path, others: Sequence[Path]) -> dict[str, Any]:
    experiment, config = child.experiment, child.experiment.config
    while True:
        if owner := holder(directory):
            say(f"waiting for {owner}, which runs {directory}")
            wait_until_free(directory)
        RunDir(directory).refuse_other_experiment(config)
        _refuse_other_device(directory, config.device)
        taken = take_stages(
            experiment.stages(), directory, others, seed=config.seed, device=config.device
        )
        if taken:
            say(f"taken over from another run: {', '.join(taken)}")
        try:
            # This process alone, whoever shares the run around it.
            return experiment.run(directory, ranks=Ranks()).summary
        except InUseError:  # somebody was quicker
            continue


def _refuse_other_device(directory: Path, device: str) -> None:
    """Raises UserError where a run has begun elsewhere: what was timed there is not this run's."""
    theirs, ours = made_on(directory), describe_device(device)["name"]
    if theirs not in (None, ours):
        raise UserError(
            f"{directory} was made on {theirs}, whose times are not those of {ours} here: remove "
            "that directory, or choose another with runs or hydra.run.dir"
        )
