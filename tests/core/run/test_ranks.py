"""Several processes share a run: how work is divided, and what one process sees of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.errors import UserError
from adaptive.core.run import LostRank, Ranks, shares
from adaptive.core.run.ranks import _told, rank_of_environment


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


def test_one_process_needs_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.here("cpu")
    assert ranks == Ranks() and ranks.main and rank_of_environment() == 0
    ranks.barrier()
    ranks.leave()
    assert ranks.sum(3.5) == 3.5 and ranks.broadcast({"a": [1]}) == {"a": [1]}


def test_half_of_torchruns_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UserError, match=r"^WORLD_SIZE=2 without .*MASTER_ADDR.*torchrun"):
        Ranks.here("cpu")


def test_a_broken_connection_is_a_sentence():
    words = r"^another process of this run has stopped: run the same command .*by peer \[1.*2\)$"
    with pytest.raises(LostRank, match=words), _told():
        raise RuntimeError("Connection closed by peer [1::]:4242\nmore lines")
