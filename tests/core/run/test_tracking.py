"""What a run logs, shown elsewhere: a stand-in for W&B, and the real TensorBoard."""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.run import Experiment, MetricsLog
from adaptive.core.run.manifest import fingerprint
from adaptive.core.run.tracking import TRACKERS, Tracking

CONFIG = toy.ToyConfig(name="toy", task="toy", items=3)


class Kept:
    """A tracker that remembers."""

    def __init__(self):
        self.logged: list[tuple[str, float, dict[str, float]]] = []
        self.ended: list[bool] = []
        self.result: dict[str, Any] = {}

    def log(self, stage, step, values):
        self.logged.append((stage, step, dict(values)))

    def summary(self, values):
        self.result |= values

    def close(self, failed):
        self.ended.append(failed)


@pytest.fixture(autouse=True)
def registered():
    toy.register()


@pytest.fixture
def kept(monkeypatch) -> Kept:
    """A tracker called ``json``, whose package is Python's own."""
    found = Kept()
    monkeypatch.setitem(TRACKERS._items, "json", lambda run, config: found)
    return found


@pytest.mark.parametrize(
    ("step", "record", "shown"),
    [
        (5, {"loss": 1.0, "kl": np.float32(0.5)}, (5, {"a/loss": 1.0, "a/kl": 0.5})),
        (5, {"accuracy": 70.0, "tokens": 64}, (5, {"a/accuracy/tokens=64": 70.0})),
        (None, {"layer": 3, "option": "kv2", "loss": 0.1}, (3, {"a/loss/option=kv2": 0.1})),
        (None, {"loss": 0.1}, (0, {"a/loss": 0.1})),
        (1, {"loss": float("nan")}, (1, {"a/loss": float("nan")})),
        (1, {"resumed": True, "steps": 9}, None),
    ],
)
def test_measurements_are_shown_by_stage_name_and_label(step, record, shown):
    tracker = Kept()
    Tracking([tracker]).log("a", step, record)
    if shown is None:
        assert tracker.logged == []
    else:
        np.testing.assert_equal(tracker.logged, [("a", *shown)])


def test_records_without_a_step_are_counted():
    tracker = Kept()
    tracking = Tracking([tracker])
    for stage in ("a", "b", "a"):
        tracking.log(stage, None, {"loss": 1.0})
    assert [(stage, step) for stage, step, _ in tracker.logged] == [("a", 0), ("b", 0), ("a", 1)]


def test_the_file_and_the_trackers_get_the_same(tmp_path):
    tracker = Kept()
    log = MetricsLog(tmp_path / "metrics.jsonl", Tracking([tracker]))
    log.log("a", 1, {"loss": 2.0})
    assert [r["loss"] for r in log.records()] == [2.0]
    assert tracker.logged == [("a", 1, {"a/loss": 2.0})]


def test_a_run_is_shown_with_its_result(tmp_path, kept):
    result = Experiment(replace(CONFIG, tracking=["json", "json"])).run(tmp_path / "r")
    assert [step for stage, step, _ in kept.logged if stage == "draw"] == [0, 1, 2]
    assert kept.result == result.summary and kept.ended == [False]


def test_a_run_that_fails_says_so(tmp_path, kept):
    with pytest.raises(ZeroDivisionError):
        Experiment(replace(CONFIG, tracking=["json"], fail="bug")).run(tmp_path / "r")
    assert kept.ended == [True] and kept.result == {}


def test_what_is_shown_is_no_reason_to_compute_again(tmp_path, kept, capsys):
    Experiment(CONFIG).run(tmp_path / "r")
    capsys.readouterr()
    Experiment(replace(CONFIG, tracking=["json"])).run(tmp_path / "r")
    assert "starts" not in capsys.readouterr().err and kept.logged == []
    marks = {fingerprint("s", [replace(CONFIG, tracking=t), 1], 0, {}) for t in ([], ["json"])}
    assert len(marks) == 1
    assert fingerprint("s", [replace(CONFIG, items=4), 1], 0, {}) not in marks


def test_trackers_are_off_by_default_and_set_by_one_setting():
    assert adaptive.load("puzzle_tiny").config.tracking == []
    config = adaptive.load("textscale_score", "tracking=[tensorboard,wandb]").config
    assert config.tracking == ["tensorboard", "wandb"]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_is_told_before_anything_is_written(tmp_path, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *more: None if n == name else find(n, *more)
    )
    with pytest.raises(UserError, match=rf"tracking={name} .*adaptive-compute\[{name}\]"):
        Experiment(replace(CONFIG, tracking=[name])).run(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_an_unknown_tracker_is_told(tmp_path):
    with pytest.raises(UserError, match="unknown tracker 'wandv'.*did you mean 'wandb'"):
        Experiment(replace(CONFIG, tracking=["wandv"])).run(tmp_path / "r")


class FakeRun:
    def __init__(self, **given):
        self.given = given
        self.logged: list[dict[str, float]] = []
        self.rows: list[int] = []
        self.axes: dict[str, str] = {}
        self.summary: dict[str, Any] = {}
        self.code: int | None = None

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values, step):
        self.logged.append(values)
        self.rows.append(step)

    def finish(self, exit_code):
        self.code = exit_code


@pytest.fixture
def wandb(monkeypatch) -> list[FakeRun]:
    """The runs that a stand-in for W&B was asked for."""
    runs: list[FakeRun] = []
    fake = types.ModuleType("wandb")
    fake.__spec__ = importlib.util.spec_from_loader("wandb", None)
    fake.init = lambda **given: runs.append(FakeRun(**given)) or runs[-1]  # type: ignore[attr-defined]
    fake.Settings = lambda **given: given  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return runs


def test_a_resumed_run_is_the_same_run_of_wandb_and_nothing_is_sent(tmp_path, wandb):
    config = replace(CONFIG, tracking=["wandb"])
    with pytest.raises(ZeroDivisionError):
        Experiment(replace(config, fail="bug")).run(tmp_path / "r")
    result = Experiment(replace(config, items=4)).run(tmp_path / "r")
    first, second = wandb
    assert first.code == 1 and second.code == 0
    assert first.given["id"] == second.given["id"] and first.given["resume"] == "allow"
    assert first.given["mode"] == "offline" and os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert Path(first.given["dir"]) == tmp_path / "r" and first.given["config"]["items"] == 3
    assert first.axes == {"draw/*": "draw/step"}
    assert [row["draw/step"] for row in first.logged] == [0, 1, 2]
    assert second.summary == result.summary
    # Rows that W&B has had are dropped: those of the second attempt come after the first's.
    rows = first.rows + second.rows
    assert second.rows and rows == sorted(set(rows))
    Experiment(config).run(tmp_path / "other")
    assert wandb[-1].given["id"] != first.given["id"]


def test_the_user_alone_turns_wandb_on(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    Experiment(replace(CONFIG, tracking=["wandb"])).run(tmp_path / "r")
    assert (wandb[0].given["mode"], wandb[0].given["project"]) == ("online", "mine")
    assert "WANDB_ERROR_REPORTING" not in os.environ


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_both_attempts_of_a_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(CONFIG, tracking=["tensorboard"])
    with pytest.raises(ZeroDivisionError):
        Experiment(replace(config, fail="bug")).run(tmp_path / "r")
    result = Experiment(config).run(tmp_path / "r")
    assert len(list((tmp_path / "r" / "tensorboard").iterdir())) == 2
    shown = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    records = MetricsLog(tmp_path / "r" / "metrics.jsonl").records()
    drawn = [(r["step"], r["value"]) for r in records if r["stage"] == "draw"]
    assert [(e.step, pytest.approx(e.value)) for e in shown.Scalars("draw/value")] == drawn
    sums = shown.Scalars("summary/toy.sum")
    assert [e.value for e in sums] == [pytest.approx(result.summary["toy.sum"])]
