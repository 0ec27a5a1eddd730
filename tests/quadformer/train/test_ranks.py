"""Processes that share a training end with the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = Path(__file__).with_name("share_training.py")


def shared(path: Path, *arguments: str) -> list[dict[str, torch.Tensor]]:
    """What two processes found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(PROGRAM), str(path), str(path / "result"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [load_file(path / f"result.{rank}") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detail", "uniform", "entropy"])  # half a minute each
def test_two_processes_have_one_model(tmp_path, kind):
    one, two = shared(tmp_path, kind)
    assert torch.equal(one["weights"], two["weights"]) and int(one["step"]) == 6
    for found in (one, two):  # a set that is shared out is judged as one that is not
        assert found["accuracy"][0] == found["accuracy"][1] or kind == "entropy"


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step_and_go_on(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, _ = shared(tmp_path / "whole", "quadformer")
    cut = shared(tmp_path / "cut", "quadformer", "2")
    assert [int(found["step"]) for found in cut] == [3, 3]
    resumed, _ = shared(tmp_path / "cut", "quadformer")
    assert torch.equal(resumed["weights"], whole["weights"])
