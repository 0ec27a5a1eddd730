"""Running stages: skip what is done, resume what was cut short, record what is found."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptive.core.run.atomic import sweep_temporaries, sync, sync_directory
from adaptive.core.run.directory import REPORT, RunDir
from adaptive.core.run.environment import GpuPeak
from adaptive.core.run.failure import failures_recorded
from adaptive.core.run.manifest import Manifest, file_table, fingerprint
from adaptive.core.run.progress import duration, say
from adaptive.core.run.ranks import Ranks
from adaptive.core.run.seed import seed_everything, stage_seed
from adaptive.core.run.stage import Stage, StageContext


def run_stages(
    stages: Sequence[Stage],
    run: RunDir,
    *,
    seed: int = 0,
    device: str = "auto",
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Runs ``stages`` in order in ``run`` and returns the merged summary.

    A stage is kept when its artefacts are there with the fingerprint that it would have now. One
    that was cut short gets its unfinished directory back. When an earlier stage made something
    else than last time, the stages that read it run again.

    Args:
        stages: unique names; each needs only earlier ones.
        run: where to run.
        seed: of the run.
        device: see ``TaskConfig.device``.
        ranks: the processes of the run, of which this is the main one; the others :func:`follow`.

    Returns:
        Flat dotted names to numbers or strings; also in ``summary.json``.

    Raises:
        UserError: by a stage, or because the disk is full.
    """
    ranks = ranks or Ranks()
    _check_order(stages)
    done: dict[str, Manifest] = {}
    with failures_recorded(run):
        run.status("running")
        for stage in stages:
            inputs = {need: done[need].result for need in stage.needs}
            mark = fingerprint(stage.name, stage.depends_on, seed, inputs)
            expected = Manifest(stage.name, mark, inputs)
            kept = _kept(run.artifacts / stage.name, expected)
            done[stage.name] = kept or _perform(stage, run, expected, seed, device, ranks)
        summary = _publish(run, done)
    ranks.broadcast(None)  # nothing more to follow
    return summary


def follow(stages: Sequence[Stage], run: RunDir, *, device: str, ranks: Ranks) -> None:
    """What the other processes of a run do: their part of the stages that are done together.

    Args:
        stages: as of the main process.
        run: where it runs.
        device: see ``TaskConfig.device``.
        ranks: the processes; this is not the main one.

    Raises:
        UserError: by a stage.
        LostRank: another process has stopped.
    """
    by_name = {stage.name: stage for stage in stages}
    while order := ranks.broadcast():
        stage = by_name[order["stage"]]
        seed_everything(order["seed"])
        directory = run.artifacts / f".{stage.name}.partial"
        stage.run(
            StageContext(
                stage.name,
                directory,
                run,
                order["seed"],
                device,
                resumed=order["resumed"],
                needs=stage.needs,
                ranks=ranks,
            )
        )
        ranks.barrier()


def _publish(run: RunDir, done: dict[str, Manifest]) -> dict[str, Any]:
    """Merges the stages' summaries, later ones winning, and takes the last report."""
    summary: dict[str, Any] = {}
    report: Path | None = None
    for name, manifest in done.items():
        summary |= manifest.summary
        if REPORT in manifest.files:
            report = run.artifacts / name / REPORT
    run.status("running")
    run.publish(summary, report)
    run.status("done")
    return summary


def _check_order(stages: Sequence[Stage]) -> None:
    seen: set[str] = set()
    for stage in stages:
        assert stage.name not in seen, f"two stages are called {stage.name!r}"
        assert seen.issuperset(stage.needs), f"{stage.name!r} needs a stage that is not before it"
        seen.add(stage.name)


def _kept(directory: Path, expected: Manifest) -> Manifest | None:
    """The manifest of a finished stage that can stay, with a line that says why or why not."""
    found = Manifest.read(directory)
    if found is None:
        return None
    if found.fingerprint != expected.fingerprint:
        say(f"[{expected.stage}] its configuration or its inputs have changed, runs again")
        return None
    reason = found.again or found.damage(directory)
    if reason:
        say(f"[{expected.stage}] {reason}, runs again")
        return None
    say(f"[{expected.stage}] done before, kept")
    return found


def _perform(
    stage: Stage, run: RunDir, expected: Manifest, seed: int, device: str, ranks: Ranks
) -> Manifest:
    partial = run.artifacts / f".{stage.name}.partial"
    begun = Manifest.read(partial)
    resumed = begun is not None and begun.fingerprint == expected.fingerprint
    if resumed:
        sweep_temporaries(partial)
        say(f"[{stage.name}] resumes")
    else:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        say(f"[{stage.name}] starts")
    run.unpublish()
    run.status("running", stage.name)
    run.metrics.start(stage.name, anew=not resumed)
    expected.write(partial)

    seed_of_stage = stage_seed(seed, stage.name)
    seed_everything(seed_of_stage)
    alone = not stage.parallel
    if not alone:
        ranks.broadcast({"stage": stage.name, "seed": seed_of_stage, "resumed": resumed})
    context = StageContext(
        stage.name,
        partial,
        run,
        seed_of_stage,
        # Of several processes each has a device of its own, whatever it does there.
        device if ranks.world == 1 else ranks.device,
        resumed=resumed,
        needs=stage.needs,
        ranks=Ranks(device=ranks.device) if alone else ranks,
    )
    start = time.perf_counter()
    peak = GpuPeak()
    stage.run(context)
    if not alone:
        ranks.barrier()
    run.metrics.finish()

    sweep_temporaries(partial)
    manifest = replace(
        expected,
        done=True,
        files=file_table(partial),
        summary=context.results,
        seconds=time.perf_counter() - start,
        gpu_bytes=peak.bytes,
        again=context.again,
    )
    manifest.write(partial)
    sync(partial)
    final = run.artifacts / stage.name
    if final.exists():
        shutil.rmtree(final)
    os.rename(partial, final)
    sync_directory(run.artifacts)
    say(f"[{stage.name}] done in {duration(manifest.seconds)}")
    return manifest
