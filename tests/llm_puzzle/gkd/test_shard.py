"""Two processes that share every layer train the child that one process trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = Path(__file__).with_name("share_training.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def train(world: int, *arguments: object) -> subprocess.CompletedProcess:
    start = [sys.executable] if world == 1 else [*TORCHRUN, str(world)]
    command = [*start, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def losses(path: Path) -> torch.Tensor:
    return torch.tensor([[float(v) for v in line.split()] for line in path.read_text().split("\n")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 2e-4), ("bfloat16", 1e-2)], ids=["float32", "bfloat16"]
)
def test_two_processes_equal_one(parent_dir, tmp_path, dtype, tolerance):
    for world in (1, 2):
        done = train(world, parent_dir, tmp_path / f"of{world}", dtype)
        assert done.returncode == 0, done.stderr
    one = load_file(tmp_path / "of1.0")
    first, second = (load_file(tmp_path / f"of2.{rank}") for rank in range(2))
    assert set(one) == set(first)
    for name, weight in one.items():
        assert torch.equal(first[name], second[name]) and first[name].dtype == weight.dtype
        torch.testing.assert_close(first[name], weight, rtol=0, atol=tolerance)
    here, there = (losses(tmp_path / f"of{world}.log") for world in (1, 2))
    torch.testing.assert_close(there, here, rtol=0, atol=20 * tolerance)


@pytest.mark.slow
def test_interrupted_processes_go_on_with_the_same_bits(parent_dir, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(2, parent_dir, whole, "float32").returncode == 0
    stopped = train(2, parent_dir, cut, "float32", tmp_path / "checkpoint", 3)
    assert stopped.returncode != 0 and not Path(f"{cut}.0").exists()
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert names == {"state.json", *(f"0-00000003.rank{rank}.safetensors" for rank in range(2))}
    done = train(2, parent_dir, cut, "float32", tmp_path / "checkpoint")
    assert done.returncode == 0, done.stderr
    assert Path(f"{cut}.0").read_bytes() == Path(f"{whole}.0").read_bytes()
    assert len(losses(Path(f"{cut}.log"))) == len(losses(Path(f"{whole}.log"))) - 3
