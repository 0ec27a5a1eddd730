"""A training that is killed goes on from its checkpoint and ends with the same bits."""

from __future__ import annotations

import contextlib
import copy
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adaptive.core.run.ranks import Ranks
from adaptive.llm_puzzle.gkd import Checkpoint, distill_globally
from adaptive.llm_puzzle.settings import GKDConfig

PROGRAM = Path(__file__).with_name("kill_training.py")


def train(parent_dir: Path, folder: Path, *kill: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), str(parent_dir), str(folder / "checkpoint")]
    return subprocess.run(
        [*command, str(folder / "child.safetensors"), *kill], capture_output=True, text=True
    )


@pytest.mark.slow
def test_sigkill_in_both_phases(parent_dir, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    done = train(parent_dir, whole)
    assert done.returncode == 0, done.stderr
    steps = [int(line) for line in done.stdout.split()]
    assert steps == list(range(len(steps))) and len(steps) > 4
    seen: list[int] = []
    for step in (1, len(steps) - 2):  # in the first phase, in the second one
        process = train(parent_dir, killed, str(step))
        assert process.returncode == -signal.SIGKILL, process.stderr
        seen += map(int, process.stdout.split())
    assert (killed / "checkpoint" / "state.json").is_file()
    process = train(parent_dir, killed)
    assert process.returncode == 0, process.stderr
    seen += map(int, process.stdout.split())
    # The steps at which it died are done again, no other.
    assert seen == sorted([*steps, 1, len(steps) - 2])
    stored = [(folder / "child.safetensors").read_bytes() for folder in (whole, killed)]
    assert stored[0] == stored[1]
    assert [path.name for path in killed.iterdir()] == ["child.safetensors"]


class Interrupted(Exception):
    pass


def trained(student, parent, rows, config, checkpoint=None, stop=None, seed=0):
    child, steps = copy.deepcopy(student), []

    def log(step, **_):
        steps.append(step)
        if step == stop:
            raise Interrupted

    with contextlib.suppress(Interrupted):
        distill_globally(child, parent.model, rows, config, seed, log=log, checkpoint=checkpoint)
    return torch.cat([weight.flatten().float() for weight in child.parameters()]), steps


CONFIG = GKDConfig(tokens=300, batch=4, checkpoint_seconds=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_interruption_leaves_no_trace(student, parent, rows, tmp_path, dtype):
    student = copy.deepcopy(student).to(dtype)
    whole, steps = trained(student, parent, rows, CONFIG)
    checkpoint = Checkpoint(tmp_path / "c", 0)
    trained(student, parent, rows, CONFIG, checkpoint, stop=3)
    assert sorted(path.suffix for path in checkpoint.directory.iterdir()) == [
        ".json",
        ".safetensors",
    ]
    resumed, rest = trained(student, parent, rows, CONFIG, checkpoint)
    assert rest == steps[3:] and torch.equal(resumed, whole)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"config": GKDConfig(tokens=300, batch=4, lm=1.0)}]
)
def test_a_checkpoint_of_other_work_is_not_used(student, parent, rows, tmp_path, change):
    checkpoint = Checkpoint(tmp_path / "c", 0)
    trained(student, parent, rows, CONFIG, checkpoint, stop=3)
    settings = {"config": CONFIG} | change
    fresh, steps = trained(student, parent, rows, checkpoint=checkpoint, **settings)
    expected, _ = trained(student, parent, rows, **settings)
    assert steps[0] == 0 and torch.equal(fresh, expected)


def test_nothing_is_saved_before_it_is_time(student, parent, rows, tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", 1e9)
    trained(student, parent, rows, CONFIG, checkpoint)
    assert not checkpoint.directory.exists()
    checkpoint.discard()  # is no mistake


def test_the_end_is_saved_too_once_saving_has_begun(student, parent, rows, tmp_path):
    """What comes after training may be killed as well."""
    checkpoint = Checkpoint(tmp_path / "c", 0)
    whole, steps = trained(student, parent, rows, CONFIG, checkpoint)
    state = json.loads((checkpoint.directory / "state.json").read_text())
    assert state["step"] == len(steps)
    again, none = trained(student, parent, rows, CONFIG, checkpoint)
    assert none == [] and torch.equal(again, whole)


def test_a_state_is_complete_or_not_there(tmp_path, monkeypatch):
    checkpoint, one = Checkpoint(tmp_path / "c", 0), Ranks()
    about = {"identity": "x", "phase": 0, "step": 1}
    checkpoint.save({"a": torch.ones(3)}, about, one)

    def torn(tensors, path):
        Path(path).write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr("adaptive.llm_puzzle.gkd.checkpoint.save_file", torn)
    with pytest.raises(OSError):
        checkpoint.save({"a": torch.zeros(3)}, {**about, "step": 2}, one)
    tensors, found = checkpoint.load("x", one)
    assert found["step"] == 1 and torch.equal(tensors["a"], torch.ones(3))
    assert checkpoint.load("y", one) == ({}, {})
