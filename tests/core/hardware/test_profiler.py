"""The profiler: rows of the right key, resumed after an interruption, honest about noise."""

from __future__ import annotations

import itertools
import logging

import pytest
import torch

from adaptive.core.cost import FFN, Attention, MeasuredTable, Origin, Row, RowKey
from adaptive.core.cost.table_file import VERSION
from adaptive.core.engine import block_subject
from adaptive.core.hardware import (
    CpuClock,
    Subject,
    clock_for,
    default_table_path,
    profile,
    profiler,
)
from adaptive.core.hardware.clock import Clock

ORIGIN = Origin("test-cpu", "2.15.0", 1)


class FakeClock(Clock):
    """Calls the subjects once a round and reports what they return as their seconds."""

    threads = 1

    def __init__(self):
        super().__init__("cpu", "eager", 0)

    def prepare(self, subjects, calls):
        return lambda order: {name: subjects[name]() for name in order}


ATTENTION = Attention(8, 2, 1, 4)
FOLDER = f"costs-{VERSION}"


def subjects(*costs: float, counts: dict | None = None) -> list[Subject]:
    def caller(i: int, cost: float):
        def call():
            if counts is not None:
                counts[i] = counts.get(i, 0) + 1
            return cost

        return call

    return [
        Subject(FFN(8, i + 1), "decode", 1, 16, lambda i=i, cost=cost: caller(i, cost))
        for i, cost in enumerate(costs)
    ]


def key(i: int, mode: str = "eager") -> RowKey:
    return RowKey(FFN(8, i + 1).key(), "prefill", 1, 1, "fp32", mode)


def test_rows_are_written_and_saved(tmp_path):
    table = MeasuredTable(ORIGIN, path=tmp_path / "costs.csv")
    assert profile(subjects(1.0, 2.0, 4.0), table, FakeClock()) is table
    assert [table[key(i)].seconds for i in range(3)] == [1.0, 2.0, 4.0]
    assert table[key(0)].repeats == 7
    assert list(MeasuredTable.load(tmp_path / "costs.csv", ORIGIN)) == list(table)


def test_known_rows_are_not_measured_again():
    counts: dict[int, int] = {}
    table = MeasuredTable(ORIGIN, [Row(key(1), 9.0)])
    profile(subjects(1.0, 2.0, counts=counts), table, FakeClock())
    assert counts == {0: 7}
    assert table[key(1)].seconds == 9.0
    profile(subjects(1.0, 2.0, counts=counts), table, FakeClock())
    assert counts == {0: 7}


def test_subjects_of_one_key_are_measured_once():
    counts: dict[int, int] = {}
    same = subjects(1.0, counts=counts)
    profile([*same, *same], MeasuredTable(ORIGIN), FakeClock())
    assert counts == {0: 7}


def test_only_what_is_missing_is_built():
    def never():
        raise AssertionError("built")

    table = MeasuredTable(ORIGIN, [Row(key(0), 1.0)])
    profile([Subject(FFN(8, 1), "decode", 1, 99, never)], table, FakeClock())
    assert len(table) == 1


def test_what_runs_together_is_measured_together():
    groups: list[int] = []

    class Watching(FakeClock):
        group_size = 3

        def prepare(self, subjects, calls):
            groups.append(len(subjects))
            return super().prepare(subjects, calls)

    def subject(phase, batch, length, nbytes=1.0):
        return Subject(ATTENTION, phase, batch, length, lambda: lambda: 1.0, "fp32", nbytes)

    decodes = [subject("decode", 1, length) for length in (16, 32, 64, 128)]
    prefills = [subject("prefill", 1, length) for length in (16, 32)]
    profile([*decodes, *prefills], MeasuredTable(ORIGIN), Watching())
    assert groups == [3, 1, 1, 1]  # decode steps of a batch, at most three; prefills alone
    groups.clear()
    large = [subject("decode", 2, length, 40.0) for length in (16, 32, 64)]
    profile(large, MeasuredTable(ORIGIN), Watching(), memory=100.0)
    assert groups == [2, 1]


def test_an_interrupted_profile_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "costs.csv"
    noisy, calls = itertools.cycle((0.5, 1.5)), itertools.count()

    def until_killed():
        if next(calls) == 12:
            raise KeyboardInterrupt
        return next(noisy)

    jobs = [*subjects(1.0, 2.0), Subject("noisy", "decode", 1, 16, lambda: until_killed)]
    with pytest.raises(KeyboardInterrupt):
        profile(jobs, MeasuredTable.open(path, ORIGIN), FakeClock())
    table = MeasuredTable.open(path, ORIGIN)
    assert {row.key for row in table} == {key(0), key(1)}  # what had settled
    counts: dict[int, int] = {}
    again = [
        *subjects(1.0, 2.0, counts=counts),
        Subject("noisy", "decode", 1, 16, lambda: lambda: 1.0),
    ]
    profile(again, table, FakeClock())
    assert counts == {} and len(table) == 3


def test_what_has_not_settled_is_kept_and_named(caplog):
    noisy = itertools.cycle((0.5, 1.5))
    jobs = [*subjects(1.0), Subject("noisy", "decode", 1, 16, lambda: lambda: next(noisy))]
    table = MeasuredTable(ORIGIN)
    with caplog.at_level(logging.WARNING):
        profile(jobs, table, FakeClock(), max_seconds=0.05)
    assert "1 of 2 medians have not settled" in caplog.text and "noisy decode" in caplog.text
    assert table[RowKey("noisy", "decode", 1, 16, "fp32", "eager")].spread > 0.1


def test_real_modules_on_the_cpu():
    jobs = [
        block_subject(FFN(64, width, gated=False), "prefill", 1, 32, "fp32", "cpu")
        for width in (64, 2048)
    ]
    clock = clock_for("cpu")
    assert isinstance(clock, CpuClock)
    table = profile(jobs, MeasuredTable(ORIGIN), clock, target_spread=0.05, max_seconds=2.0)
    narrow, wide = (
        table.seconds(FFN(64, width, gated=False), "prefill", 1, 32, "fp32").seconds
        for width in (64, 2048)
    )
    assert 0 < narrow < wide < 0.1
    assert (
        narrow < table.seconds(FFN(64, 512, gated=False), "prefill", 1, 32, "fp32").seconds < wide
    )


def test_default_table_path(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path))
    assert default_table_path(ORIGIN) == tmp_path / FOLDER / "test-cpu-2.15.0-1.csv"
    monkeypatch.delenv("ADAPTIVE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home" / ".cache" / "adaptive" / FOLDER / "test-cpu-2.15.0-1.csv"
    assert default_table_path(ORIGIN) == expected


def test_the_origin_is_the_clocks():
    origin = CpuClock(threads=3).origin
    assert origin.torch == torch.__version__ and origin.threads == 3
    assert origin.device and "/" not in origin.device and " " not in origin.device
