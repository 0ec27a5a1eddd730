from __future__ import annotations

import pytest

from adaptive.core.run import MetricsLog


@pytest.fixture
def log(tmp_path):
    return MetricsLog(tmp_path / "metrics.jsonl")


def rows(log: MetricsLog) -> list[tuple]:
    return [(r["stage"], r["step"], r.get("loss"), r.get("layer")) for r in log.records()]


def test_a_stage_that_starts_anew_loses_its_old_records_only(log):
    for stage in ("a", "b"):
        log.start(stage, anew=True)
        log.log(stage, 1, {"loss": 1.0})
    log.start("a", anew=True)
    log.log("a", 1, {"loss": 2.0})
    assert rows(log) == [("b", 1, 1.0, None), ("a", 1, 2.0, None)]


def test_a_resumed_stage_keeps_its_records_and_the_later_of_two_counts(log):
    log.start("a", anew=True)
    for layer in (0, 1):
        for step in (1, 2):
            log.log("a", step, {"loss": 1.0, "layer": layer})
    log.start("a", anew=False)
    log.log("a", 2, {"loss": 9.0, "layer": 1})
    log.finish()
    assert rows(log) == [("a", 1, 1.0, 0), ("a", 2, 1.0, 0), ("a", 1, 1.0, 1), ("a", 2, 9.0, 1)]


def test_records_with_other_fields_are_other_records(log):
    log.log("a", 1, {"loss": 1.0})
    log.log("a", 1, {"kl": 1.0})
    log.finish()
    assert len(log.records()) == 2


def test_a_torn_last_line_is_dropped(log):
    log.log("a", 1, {"loss": 1.0})
    with log.path.open("a") as stream:
        stream.write('{"stage": "a", "st')
    log.start("a", anew=False)
    log.log("a", 2, {"loss": 2.0})
    assert rows(log) == [("a", 1, 1.0, None), ("a", 2, 2.0, None)]


def test_nan_is_logged_as_strict_json(log):
    log.log("a", 1, {"loss": float("nan")})
    assert log.records()[0]["loss"] == "nan"


def test_a_run_that_logs_nothing_has_the_file_too(log):
    log.start("a", anew=True)
    log.finish()
    assert log.path.read_text() == ""
