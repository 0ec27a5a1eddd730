from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import toy
import yaml

from adaptive.core.errors import UserError
from adaptive.core.run import Experiment, Result, RunDir

CONFIG = toy.ToyConfig(name="toy", task="toy", items=2)
HOLDER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from adaptive.core.run.lock import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
""")


@pytest.fixture(autouse=True)
def registered():
    toy.register()


def test_an_experiment_leaves_its_configuration_and_how_it_was_run(tmp_path, capsys):
    result = Experiment(CONFIG, "adaptive.load('toy')").run(tmp_path / "r")
    assert yaml.safe_load((result.dir / "config.yaml").read_text())["budget"] == {
        "latency": None,
        "memory": None,
    }
    record = json.loads((result.dir / "run.json").read_text())
    assert record["command"] == "adaptive.load('toy')" and record["seed"] == 0
    assert record["device"]["torch"] == "cpu" and "numpy" in record["packages"]
    assert record["wall_seconds"] > 0 and record["peak_memory"]["host"] > 0
    assert Result.read(result.dir).summary == result.summary
    out = capsys.readouterr().out
    assert "toy.sum" in out and out.rstrip().endswith(f"report: {result.report}")


def test_a_second_attempt_adds_to_the_first(tmp_path):
    for attempt in (1, 2):
        Experiment(CONFIG).run(tmp_path)
        record = json.loads((tmp_path / "run.json").read_text())
        assert record["attempts"] == attempt
        if attempt == 1:
            first = record
    assert record["started"] == first["started"]
    assert record["wall_seconds"] > first["wall_seconds"]


def test_another_experiment_is_refused_and_the_first_one_kept(tmp_path):
    Experiment(CONFIG).run(tmp_path)
    other = toy.ToyConfig(name="other", task="toy")
    with pytest.raises(UserError, match="holds a run of 'toy'.*hydra.run.dir"):
        Experiment(other).run(tmp_path)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("text", ["- a list", "name: x", "a: [", ""])
def test_somebody_elses_configuration_is_not_overwritten(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match="is not of a run: choose another hydra.run.dir"):
        Experiment(CONFIG).run(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == text


def test_a_failure_while_stages_are_listed_is_recorded(tmp_path, monkeypatch):
    def refuse(config):
        raise UserError("parent=x has no weights")

    monkeypatch.setattr(toy, "stages", refuse)
    with pytest.raises(UserError, match="no weights"):
        Experiment(CONFIG).run(tmp_path)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status == {"state": "failed", "stage": None, "error": "parent=x has no weights"}


def test_one_process_at_a_time_and_the_lock_dies_with_its_process(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on"):
            Experiment(CONFIG).run(tmp_path)
        assert not (tmp_path / "config.yaml").exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        Experiment(CONFIG).run(tmp_path)


def test_the_table_aligns_numbers_and_shows_what_is_missing(tmp_path):
    summary = {"child.loss": 1.304567, "params": 3_000_000, "none": None, "why": "no budget"}
    assert Result(tmp_path, summary).table().splitlines() == [
        "child.loss      1.305",
        "params      3,000,000",
        "none                -",
        "why         no budget",
    ]


def test_without_a_directory_runs_go_below_runs_and_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = Experiment(CONFIG).run()
    assert result.dir.parent == RunDir(tmp_path / "runs" / "toy").path.relative_to(tmp_path)
