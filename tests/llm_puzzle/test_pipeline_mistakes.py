"""Puzzle misused: one sentence that names the setting, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from puzzle_runs import experiment

import adaptive
from adaptive.core import UserError

BEFORE_ANYTHING = {
    "budget.latency=30parsec": "budget.latency",
    "budget.latency=null": "budget is empty",
    "search.solver=simplex": "search.solver: unknown solver 'simplex'",
    "search.frontier=[]": "search.frontier is empty",
    "data.length=1": "data.length=1 must be at least 2",
    "data.temperature=0": "data.temperature=0.0 must be above 0",
    "distill.init=random": "distill.init='random' is unknown, choose one of paper, ridge",
    "score.metric=mmlu": "score.metric='mmlu' is unknown",
    "baselines=[magic]": "baselines: unknown baseline 'magic'",
    "search.rounds=0": "search.rounds=0 must be at least 1",
    "search.heal=-1": "search.heal=-1.0 must not be negative",
    "search.n_solutions=0": "search.n_solutions=0 must be at least 1",
    "search.interactions=-1": "search.interactions=-1 must not be negative",
    "search.diversity=1.2": "search.diversity=1.2 must lie in 0 to 1",
    "dtype=float8": "dtype='float8' is unknown",
    "workload.batch=0": "workload.batch=0 must be at least 1",
    "gkd.micro_batch=0": "gkd.micro_batch=0 must be at least 1",
    "gkd.kl=-1": "gkd.kl=-1.0 must not be negative",
    "gkd.long.length=64": "gkd.long.length=64 must not be below data.length=128",
    "evaluate.batch_tokens=0": "evaluate.batch_tokens=0 must be at least 1",
    "evaluate.lm_eval_limit=0": "evaluate.lm_eval_limit=0 must be at least 1",
}


@pytest.mark.parametrize("override", BEFORE_ANYTHING)
def test_a_mistake_in_the_settings_is_told_before_anything_runs(override):
    with pytest.raises(UserError, match=re.escape(BEFORE_ANYTHING[override])):
        adaptive.load("puzzle_tiny", override)


def test_partial_children_leave_the_last_one_some_tokens():
    with pytest.raises(UserError, match=r"^search.heal=0.5 of 2 partial children leaves the last"):
        adaptive.load("puzzle_tiny", "search.rounds=3", "search.heal=0.5")


def lose_weights(parent: Path) -> str:
    (parent / "model.safetensors").unlink()
    return "lacks model.safetensors"


def corrupt_weights(parent: Path) -> str:
    path = parent / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    return "is not a readable safetensors file"


def bad_space(parent: Path) -> str:
    return "space.kv_heads: 3 does not divide the parent's 4 KV heads"


def empty_text(parent: Path) -> str:
    (parent / "text.txt").write_text("  \n")
    return "text.txt is empty"


def other_encoding(parent: Path) -> str:
    (parent / "text.txt").write_bytes(b"na\xefve text")
    return "text.txt is not UTF-8 (byte 2)"


def too_little_text(parent: Path) -> str:
    (parent / "text.txt").write_text("Once upon a time.")
    return "too few to hold out data.validation_tokens=300"


MISTAKES = {
    lose_weights: (),
    corrupt_weights: (),
    bad_space: ("space.kv_heads=[3]",),
    empty_text: ("data.calibration={}/text.txt",),
    other_encoding: ("data.calibration={}/text.txt",),
    too_little_text: ("data.calibration={}/text.txt",),
}


@pytest.mark.parametrize("make", MISTAKES, ids=lambda make: make.__name__)
def test_bad_input_is_one_sentence_and_leaves_no_artefact(parent_dir, tmp_path, make):
    parent = Path(shutil.copytree(parent_dir, tmp_path / "parent"))
    message = make(parent)
    overrides = [override.format(parent) for override in MISTAKES[make]]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        experiment(parent, tmp_path, *overrides).run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    made = {path.name for path in (tmp_path / "run" / "artifacts").iterdir()}
    assert {name for name in made if not name.startswith(".")} <= {"costs"}
    assert not (tmp_path / "run" / "summary.json").exists()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed" and message in status["error"]


def test_a_full_disk_leaves_no_half_variant(parent_dir, tmp_path, monkeypatch):
    from adaptive.llm_puzzle import library

    save, written = library.save_file, []

    def full(tensors, path, **more):
        written.append(path)
        if len(written) == 3:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path, **more)

    monkeypatch.setattr(library, "save_file", full)
    with pytest.raises(UserError, match="(?i)disk|space"):
        experiment(parent_dir, tmp_path).run(tmp_path / "run")
    files = [p.name for p in (tmp_path / "run").rglob("*.safetensors") if "layer" in str(p)]
    assert len(files) == 2
