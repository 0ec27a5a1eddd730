"""Puzzle killed in every stage, and its recipe on real data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from puzzle_runs import SETTINGS, STAGES, experiment, measured_rows, steps_are_whole, summary_of

import adaptive
from adaptive.core.run import Result, RunDir, run_stages

KILLED = """
import os, signal, sys, threading
from adaptive.core.run.directory import RunDir

stage, delay = sys.argv.pop(1), float(sys.argv.pop(1))
status = RunDir.status

def watched(self, state, at=None, *rest, **more):
    status(self, state, at, *rest, **more)
    if at == stage:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

RunDir.status = watched
from adaptive.run import main
main()
"""


def start(parent_dir: Path, folder: Path, run: Path, stage: str, delay: float) -> int:
    """The command line in a process that SIGKILL ends ``delay`` seconds into a stage.

    It has as many threads as this one: sums over threads round differently.
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLED, stage, str(delay), "+exp=puzzle_tiny"]
        + [f"parent={parent_dir}", f"cost.table={folder / 'table.csv'}", *SETTINGS]
        + [f"hydra.run.dir={run}"],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_summary(parent_dir, tmp_path):
    """One run, killed by SIGKILL in each stage in turn; times come from the table."""
    folder = tmp_path
    experiment(parent_dir, folder).run(tmp_path / "first")
    reference = experiment(parent_dir, folder).run(tmp_path / "reference")
    assert measured_rows(reference.dir) == 0
    run = tmp_path / "run"
    for i, stage in enumerate(STAGES):
        assert start(parent_dir, folder, run, stage, 0.03 * (i % 3)) == -signal.SIGKILL
        assert not (run / "summary.json").exists()
    assert start(parent_dir, folder, run, "none", 0.0) == 0
    assert summary_of(Result.read(run)) == summary_of(reference)
    for name in ("child", "baseline_random"):
        stored = [
            (root / "artifacts" / name / "model" / "model.safetensors").read_bytes()
            for root in (run, tmp_path / "reference")
            if (root / "artifacts" / name / "model").is_dir()
        ]
        assert len(set(stored)) <= 1
    steps_are_whole(Result.read(run))
    assert not list(run.rglob(".tmp-*")) and not list((run / "artifacts").glob(".*"))


# --- the recipe on real data ---


@pytest.mark.slow
@pytest.mark.data
def test_stories_parent_reads_stories_as_well_as_published(data_dir, tmp_path, monkeypatch):
    """1.304 nats a token, story by story, BOS first, at most 512 tokens, on the first 300."""
    monkeypatch.setenv("ADAPTIVE_DATA", str(data_dir))
    loaded = adaptive.load("puzzle_stories", "data.tokens=2000")
    [calibration] = [stage for stage in loaded.stages() if stage.name == "calibration"]
    summary = run_stages([calibration], RunDir(tmp_path), device="cpu")
    assert summary["parent.loss"] == pytest.approx(1.304, abs=0.02)
