"""From Hydra's sweeps to the commands of their runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toy

from adaptive import config, launcher, run
from adaptive.core.run.commandline import flags
from adaptive.core.run.launch.job import Job

RECIPES = {
    "cluster": "- override /cluster: local\n",
    "launcher": "- override /hydra/launcher: joblib\nhydra:\n  mode: MULTIRUN\n",
    "settings": "- override /cluster: local\nhydra:\n  launcher:\n    n_jobs: 2\n",
    "of_the_command": "hydra:\n  launcher:\n    n_jobs: 2\n",
}


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Runs a command line, and returns the jobs that it would have started."""
    toy.register()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "TASK_MODULES", ())
    monkeypatch.setattr(run.signal, "signal", lambda *args: None)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    for name, lines in RECIPES.items():
        text = f"# @package _global_\ndefaults:\n- override /task: toy\n{lines}name: {name}\n"
        (tmp_path / "mine" / "exp" / f"{name}.yaml").write_text(text)
    found: list[Job] = []
    monkeypatch.setattr(launcher, "this_program", lambda: ("-m", "adaptive.run"))
    monkeypatch.setattr(launcher, "run_jobs", lambda jobs, *_: found.extend(jobs.values()))

    def call(*arguments: str) -> list[Job]:
        where = ["--config-dir", str(tmp_path / "mine")]
        monkeypatch.setattr(sys, "argv", ["adaptive", *where, *arguments])
        run.main()
        return found

    return call


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_that_chooses_its_cluster_starts_runs_and_not_sweeps(
    launched, recipe, monkeypatch
):
    cluster = ["cluster=local"] if recipe == "of_the_command" else []
    jobs = launched(f"+exp={recipe}", "offset=1,2", *cluster)
    assert len(jobs) == 2
    started: list[Path] = []
    monkeypatch.setattr(run.Experiment, "run", lambda self, directory: started.append(directory))
    for job in jobs:
        arguments = job.command[job.command.index("--config-dir") :]
        assert flags(arguments)[0][0] == "--config-dir"
        assert launched(*arguments[2:]) == jobs  # no more than before
    assert started == [Path(job.directory) for job in jobs]


def test_two_runs_of_one_directory_are_refused_before_any_starts(launched, capsys):
    with pytest.raises(SystemExit) as stop:
        launched("+exp=cluster", "offset=1,2", "hydra.sweep.subdir=x")
    assert stop.value.code == 1
    err = capsys.readouterr().err
    assert "the directory runs/x, that of offset=1.0 and that of offset=2.0" in err
    assert launched("+exp=cluster", "offset=1", "hydra.sweep.subdir=x")


@pytest.mark.slow  # five processes that import torch
def test_torchrun_starts_each_run_of_a_sweep(tmp_path):
    command = [sys.executable, toy.__file__, "-m", "+exp=toy", "items=2", "offset=1,2"]
    command += ["cluster=local", "hydra.launcher.processes=2", "hydra.launcher.n_jobs=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logs = [log.read_text() for log in (tmp_path / "runs/toy/sweep").glob("*/job.log")]
    assert len(logs) == 2 and all("--nproc-per-node=2" in log for log in logs)
    assert all(log.count("[draw] done") == 1 for log in logs)  # the main rank's words alone
