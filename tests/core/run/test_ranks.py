"""One process needs no others, several talk in JSON and sums."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.core.run import LostRank, Ranks, shares
from adaptive.core.run.ranks import _told


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


ENDING = """
import atexit, sys
from adaptive.core.run.ranks import no_teardown
atexit.register(lambda: print("torn down"))
with no_teardown():
    print("ran")
    {end}
"""


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("end", "code"),
    [("pass", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("sys.exit('a word')", 1), ("1 / 0", 1)],
)
def test_one_of_several_processes_ends_at_once_with_its_code(end, code, several, monkeypatch):
    if several:
        monkeypatch.setenv("WORLD_SIZE", "2")
    program = [sys.executable, "-c", ENDING.format(end=end)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    passed_on = end in ("sys.exit('a word')", "1 / 0")
    torn_down = "torn down\n" if passed_on or not several else ""
    assert done.stdout == "ran\n" + torn_down
    assert ("a word" in done.stderr) == ("word" in end)
    assert ("ZeroDivisionError" in done.stderr) == ("/" in end)


def loads(costs: list[float], parts: list[range]) -> list[float]:
    return [sum(costs[i] for i in part) for part in parts]


@given(
    costs=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 7.5]), max_size=8),
    world=st.integers(1, 5),
)
def test_no_division_into_runs_has_a_cheaper_dearest_share(costs, world):
    parts = shares(costs, world)
    assert len(parts) == world
    assert [i for part in parts for i in part] == list(range(len(costs)))
    empty = [not part for part in parts]
    assert empty == sorted(empty)  # those without work come last
    cuts = itertools.combinations_with_replacement(range(len(costs) + 1), world - 1)
    best = min(
        max(loads(costs, [range(a, b) for a, b in itertools.pairwise((0, *cut, len(costs)))]))
        for cut in cuts
    )
    assert max(loads(costs, parts)) == pytest.approx(best)


def test_equal_work_is_divided_equally():
    assert shares([1.0] * 8, 2) == [range(0, 4), range(4, 8)]
    assert shares([1.0] * 8, 4) == [range(i, i + 2) for i in (0, 2, 4, 6)]
    # Scores of early layers pass through more layers than those of late ones.
    assert shares([4.0, 3.0, 2.0, 1.0], 2) == [range(0, 1), range(1, 4)]


def test_a_broken_connection_is_a_sentence():
    words = r"^another process of this run has stopped: run the same command .*by peer \[1.*2\)$"
    with pytest.raises(LostRank, match=words), _told():
        raise RuntimeError("Connection closed by peer [1::]:4242\nmore lines")
