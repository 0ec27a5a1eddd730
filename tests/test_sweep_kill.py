"""Sweeps that are killed, truly, and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

RUNS, KILLS, SIDE_BY_SIDE = 12, 2, 2


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    offsets = ",".join(map(str, range(RUNS)))
    command = [sys.executable, toy.__file__, "-m", "+exp=toy", "items=6", "pause=0.1"]
    return subprocess.Popen(
        [*command, f"offset={offsets}", *arguments],
        cwd=home,
        env={**os.environ, "TOY_TALLY": str(home / "tally")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def runs(home: Path) -> list[Path]:
    return sorted((home / "runs" / "toy" / "sweep").glob("items=*"))


def done(home: Path) -> int:
    return len(list((home / "runs" / "toy" / "sweep").glob("*/summary.json")))


def read(run: Path, name: str) -> dict:
    return json.loads((run / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "at_once"),
    [
        ((), 1),
        (("hydra/launcher=joblib", f"hydra.launcher.n_jobs={SIDE_BY_SIDE}"), SIDE_BY_SIDE),
    ],
)
def test_twelve_runs_killed_twice_are_complete_and_none_is_computed_twice(
    tmp_path, launcher, at_once
):
    chance = random.Random(11)
    for kill in range(KILLS):
        process = start(tmp_path, *launcher)
        goal = done(tmp_path) + chance.randint(1, 3)
        while done(tmp_path) < goal:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late"
        assert 0 < done(tmp_path) < RUNS
    last = start(tmp_path, *launcher)
    _, err = last.communicate(timeout=400)
    assert last.returncode == 0, err
    assert f"{RUNS} runs in " in err and " done before" in err

    assert len(runs(tmp_path)) == RUNS
    assert {read(run, "status.json")["state"] for run in runs(tmp_path)} == {"done"}
    sums = [read(run, "summary.json")["toy.sum"] - read_offset(run) for run in runs(tmp_path)]
    assert sums == pytest.approx([sums[0]] * RUNS)  # the same draws, killed or not
    # Only a run that a kill met was begun twice, and it drew again no more than the item in flight.
    attempts = [read(run, "run.json")["attempts"] for run in runs(tmp_path)]
    assert RUNS <= sum(attempts) <= RUNS + KILLS * at_once
    drawn = (tmp_path / "tally").read_text().splitlines()
    assert len(set(drawn)) == RUNS * 6
    assert len(drawn) <= RUNS * 6 + KILLS * at_once
    leftovers = [*tmp_path.rglob(".tmp-*"), *tmp_path.rglob(".*.partial")]
    assert leftovers == []


def read_offset(run: Path) -> float:
    return float(run.name.split("offset=")[1].split(",")[0])


@pytest.mark.slow
def test_two_launches_at_once_share_the_runs(tmp_path):
    both = [start(tmp_path, "items=4") for _ in range(2)]
    texts = [process.communicate(timeout=400)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert [read(run, "status.json")["state"] for run in runs(tmp_path)] == ["done"] * RUNS
    assert [read(run, "run.json")["attempts"] for run in runs(tmp_path)] == [1] * RUNS
    drawn = (tmp_path / "tally").read_text().splitlines()
    assert len(drawn) == len(set(drawn)) == RUNS * 4
    assert all(f"\n{RUNS} runs in " in text for text in texts)


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on(tmp_path):
    process = start(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    while done(tmp_path) < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "interrupted, nothing is lost; to resume: python -m adaptive.run" in err
    states = {read(run, "status.json")["state"] for run in runs(tmp_path)}
    assert states <= {"done", "failed"}  # "interrupted", and nobody is left running
