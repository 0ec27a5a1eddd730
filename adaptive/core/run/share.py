"""Runs of one recipe do what they have in common once: one takes another's finished stages over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from adaptive.core.run.atomic import atomic_path, atomic_write_text
from adaptive.core.run.directory import RunDir, made_on
from adaptive.core.run.environment import describe_device
from adaptive.core.run.lock import InUseError, locked
from adaptive.core.run.manifest import Manifest, fingerprint
from adaptive.core.run.stage import Stage


def take_stages(
    stages: Sequence[Stage], directory: Path, others: Iterable[Path], *, seed: int, device: str
) -> list[str]:
    """Gives a run the finished stages of other runs that it would make just so.

    That is told by fingerprints, as when a run resumes: a stage is taken where its settings, its
    seed and all that it reads are the same. Files are linked, not copied, where the disk can; a
    run that makes a stage anew writes new files, so the other run keeps its own.

    Args:
        stages: of the run, in order.
        directory: of the run, which need not exist; one that is in use is left alone.
        others: run directories, the first that has a stage gives it; those in use give none, nor
            do those of another model of device, on which other times were measured.
        seed: of the run.
        device: its setting.

    Returns:
        Names of the stages that were taken over.
    """
    run = RunDir(directory)
    taken: list[str] = []
    ours = describe_device(device)["name"]
    try:
        with locked(directory):
            done = _done(stages, run, seed, {})
            for other in others:
                if other == directory or not other.is_dir() or len(done) == len(stages):
                    continue
                try:
                    with locked(other):
                        if made_on(other) not in (None, ours):
                            continue
                        theirs = RunDir(other)
                        for name, found in _done(stages, theirs, seed, done).items():
                            if name not in done:
                                _take(name, theirs, run)
                                done[name] = found
                                taken.append(name)
                except InUseError:
                    continue
    except InUseError:
        pass
    return taken


def _done(
    stages: Sequence[Stage], run: RunDir, seed: int, known: dict[str, Manifest]
) -> dict[str, Manifest]:
    """The stages that a run has with the fingerprints that they would have now, beside others."""
    done = dict(known)
    for stage in stages:
        if stage.name in done or not done.keys() >= set(stage.needs):
            continue
        inputs = {need: done[need].result for need in stage.needs}
        mark = fingerprint(stage.name, stage.depends_on, seed, inputs)
        home = run.artifacts / stage.name
        found = Manifest.read(home)
        if found is None or not found.done or found.fingerprint != mark:
            continue
        if not found.again and not found.damage(home):
            done[stage.name] = found
    return done


def _take(name: str, theirs: RunDir, ours: RunDir) -> None:
    """Links the files of a stage, and takes its records of ``metrics.jsonl`` over."""
    records = [r for r in ours.metrics.records() if r["stage"] != name]
    records += [r for r in theirs.metrics.records() if r["stage"] == name]
    if records:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        atomic_write_text(ours.metrics.path, text)
    with atomic_path(ours.artifacts / name) as temporary:
        shutil.copytree(theirs.artifacts / name, temporary, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
