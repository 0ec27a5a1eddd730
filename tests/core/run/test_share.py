"""Runs take over the stages of others that they would make just so."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import toy

from adaptive.core.run import Manifest, RunDir, run_stages
from adaptive.core.run.environment import describe_device
from adaptive.core.run.lock import locked
from adaptive.core.run.share import take_stages


def run(path: Path, **changes) -> dict:
    config = toy.ToyConfig(name="toy", task="toy", **{"items": 3, **changes})
    return run_stages(toy.stages(config), RunDir(path), seed=config.seed, device="cpu")


def take(path: Path, *others: Path, **changes) -> list[str]:
    config = toy.ToyConfig(name="toy", task="toy", **{"items": 3, **changes})
    return take_stages(toy.stages(config), path, others, seed=config.seed, device="cpu")


@pytest.fixture
def other(tmp_path) -> Path:
    run(tmp_path / "other")
    return tmp_path / "other"


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"offset": 2.0}, ["draw"]),
        ({}, ["draw", "add", "report"]),
        ({"items": 4}, []),
        ({"seed": 1}, []),
    ],
)
def test_what_would_be_the_same_is_taken(tmp_path, other, changes, taken, capsys):
    ours = tmp_path / "ours"
    assert take(ours, tmp_path / "nowhere", other, **changes) == taken
    capsys.readouterr()
    found = run(ours, **changes)
    kept = [f"[{name}] done before, kept" for name in taken]
    assert [line for line in capsys.readouterr().err.splitlines() if "kept" in line] == kept
    assert found == run(tmp_path / "alone", **changes)
    records = [json.loads(line) for line in (ours / "metrics.jsonl").read_text().splitlines()]
    alone = (tmp_path / "alone" / "metrics.jsonl").read_text().splitlines()
    values = [
        [record.get("value") for record in some] for some in (records, map(json.loads, alone))
    ]
    assert values[0] == values[1]


def test_files_are_linked_and_outlive_the_run_that_they_come_from(tmp_path, other):
    ours = tmp_path / "ours"
    assert "draw" in take(ours, other, offset=2.0)
    files = [home / "artifacts" / "draw" / "0.json" for home in (ours, other)]
    assert os.path.samefile(*files)
    text = files[1].read_text()
    run(other, seed=1)  # makes its stages anew
    assert files[1].read_text() != text and files[0].read_text() == text
    shutil.rmtree(other)
    assert run(ours, offset=2.0)["items"] == 3


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, other, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert take(tmp_path / "ours", other, offset=2.0) == ["draw"]
    assert run(tmp_path / "ours", offset=2.0) == run(tmp_path / "alone", offset=2.0)


def test_damaged_stages_and_those_of_a_run_in_use_stay_where_they_are(tmp_path, other):
    ours = tmp_path / "ours"
    with locked(other):
        assert take(ours, other) == []
    ours.mkdir(exist_ok=True)
    with locked(ours):
        assert take(ours, other) == []
    (other / "artifacts" / "draw" / "0.json").unlink()
    assert take(ours, other) == []


def test_what_was_made_on_another_device_is_not_taken(tmp_path, other):
    here = describe_device("cpu")["name"]
    for record, taken in (
        ({"device": {"name": "Abacus 9"}}, []),
        ({"device": {"name": here}}, ["draw"]),
        ({"device": None}, ["draw"]),  # nothing tells
    ):
        (other / "run.json").write_text(json.dumps(record))
        assert take(tmp_path / str(record), other, offset=2.0) == taken


def test_what_is_to_run_again_is_not_taken_and_runs_again(tmp_path, other, capsys):
    home = other / "artifacts" / "add"
    manifest = Manifest.read(home)
    assert manifest is not None
    manifest.again = "something was missing"
    manifest.write(home)
    assert take(tmp_path / "ours", other) == ["draw"]
    capsys.readouterr()
    run(other)
    assert "[add] something was missing, runs again" in capsys.readouterr().err
    run(other)
    assert "[add] done before, kept" in capsys.readouterr().err
