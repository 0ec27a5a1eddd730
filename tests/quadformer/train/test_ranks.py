"""Processes that share a training end with the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = Path(__file__).with_name("share_training.py")


@pytest.mark.slow
def test_two_processes_have_one_model(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(PROGRAM), str(tmp_path), str(tmp_path / "result")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / f"result.{rank}") for rank in range(2))
    assert torch.equal(one["weights"], two["weights"])
    for found in (one, two):  # a set that is shared out is judged as one that is not
        assert found["accuracy"][0] == found["accuracy"][1]
