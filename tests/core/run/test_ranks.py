"""One process needs no others, several talk in JSON and sums."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from adaptive.core.errors import UserError
from adaptive.core.run.ranks import Ranks


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_is_the_main_one_and_joins_nobody():
    ranks = Ranks.here("cpu")
    assert ranks == Ranks(0, 1, "cpu") and ranks.main
    value, tensor = {"a": [1, None]}, torch.ones(2)
    assert ranks.broadcast(value) is value and ranks.sum(2.5) == 2.5
    assert ranks.sum_tensor(tensor) is tensor
    ranks.barrier()
    ranks.leave()
    assert not torch.distributed.is_initialized()


def test_half_an_environment_is_a_mistake(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match=r"WORLD_SIZE=2 without MASTER_ADDR, MASTER_PORT: .*torchr"):
        Ranks.here("cpu")


PROGRAM = """
import torch
from adaptive.core.run.ranks import Ranks
ranks = Ranks.here("cpu")
text = ranks.broadcast({"word": "ünïcode", "list": [1, None]} if ranks.main else "ignored")
assert text == {"word": "ünïcode", "list": [1, None]}, text
assert ranks.broadcast(None) is None
assert ranks.sum(0.5 + ranks.rank) == 2.0
mine = torch.full((2, 2), float(ranks.rank + 1))
assert ranks.sum_tensor(mine).eq(3).all() and mine.eq(ranks.rank + 1).all()
assert ranks.main == (ranks.rank == 0) and ranks.world == 2
ranks.barrier()
ranks.leave()
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*start, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
