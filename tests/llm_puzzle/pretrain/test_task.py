"""The task `train_parent`, its settings, report and card."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny_parent import SCHEDULE, SHAPE

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Experiment
from adaptive.llm_puzzle.pretrain import card, model
from adaptive.llm_puzzle.pretrain.config import TextData, TrainParentConfig
from adaptive.llm_puzzle.pretrain.report import loss_curves
from adaptive.llm_puzzle.pretrain.settings import ParentShape, Schedule, Source
from adaptive.llm_puzzle.pretrain.stages import progress


def make_config(sources, **changes) -> TrainParentConfig:
    data = TextData(root="/", train=sources[0], valid=sources[1])
    config = TrainParentConfig("tiny", "train_parent", data=data, shape=SHAPE, schedule=SCHEDULE)
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def test_task_end_to_end(sources, tmp_path, capsys):
    config = make_config(sources, device="cpu")
    config.validate()
    experiment = Experiment(config)
    result = experiment.run(tmp_path / "run")
    assert result.summary["parent.params"] == 22_048
    assert result.summary["valid.stories.loss"] < math.log(SHAPE.vocab)
    assert result.summary["train.steps"] == 12
    parent = tmp_path / "run" / "artifacts" / "export"
    assert model.load_parent(parent).config.num_key_value_heads == SHAPE.kv_heads
    assert "bits/byte" in (tmp_path / "run" / "report.html").read_text()
    # Other validation text is another experiment's data, so nothing may be kept.
    capsys.readouterr()
    experiment.run(tmp_path / "run")
    assert capsys.readouterr().err.count("done before, kept") == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": TextData(train={})}, r"data\.train names no text"),
        ({"data": TextData(train={"x": Source()})}, r"data\.train\.x\.path is empty"),
        ({"data": TextData(train={"x": Source("a", "")})}, r"x\.documents is empty"),
        (
            {"data": TextData(train={"x": Source("a", repeat=0.0)})},
            r"x\.repeat=0.0 must be positive",
        ),
        ({"shape": ParentShape(kv_heads=3)}, r"shape\.kv_heads=3 must divide shape\.heads=8"),
        ({"shape": ParentShape(head_dim=5)}, r"shape\.head_dim=5 must be even"),
        ({"shape": ParentShape(vocab=100)}, r"shape\.vocab=100 must lie in 258"),
        ({"shape": ParentShape(layers=0)}, r"shape\.layers must be positive"),
        ({"schedule": Schedule(optimizer="sgd")}, r"choose muon or adamw"),
        ({"schedule": Schedule(steps=0)}, r"schedule\.steps must be positive"),
        ({"schedule": Schedule(seconds=-1.0)}, r"must not be negative"),
        ({"schedule": Schedule(dropout=1.0)}, r"schedule\.dropout=1\.0 must lie in 0 to 1"),
        ({"schedule": Schedule(warmup=0.7)}, r"sum <= 1"),
    ],
)
def test_bad_settings_are_told_in_a_sentence(sources, changes, message):
    with pytest.raises(UserError, match=message):
        make_config(sources, **changes).validate()


def test_missing_text_is_found_before_anything_runs(sources):
    config = make_config(sources)
    config.data.valid = {"x": Source("nowhere/x.txt")}
    with pytest.raises(UserError, match=r"data\.valid\.x\.path: there is no /nowhere/x\.txt"):
        TASKS["train_parent"].stages(config)


def test_progress_line():
    record = {"loss": 2.34567, "lr": 0.004, "tokens_per_second": 3.2e6, "eta": 125.0}
    line = progress(10, record)
    assert line == "step 10, 3,200.0 k tokens/s, 2 min 05 s left, loss 2.346, lr 0.004"
    assert progress(0, {"steps": 9}) == "step 0, steps 9"


def test_loss_curves_take_losses_alone():
    history = [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "loss": 1.0, "valid.a": 1.5}]
    assert loss_curves(history) == {
        "training": [(1, 2.0), (2, 1.0)],
        "validation: a": [(2, 1.5)],
    }


def test_card_numbers_are_replaced_not_repeated():
    result = {
        "valid": {"stories": {"loss": 1.23456, "bits_per_byte": 0.71, "tokens": 12345}},
        "parameters": 3_935_424,
        "bytes": 7_870_848,
        "dtype": "float16",
        "rounding": {"float16": 1.2e-5},
        "tokens_seen": 1_179_648_000,
        "steps": 9000,
        "seconds": {"training": 400.0},
        "device": "a GPU",
        "versions": {"torch": "2.11"},
        "date": "2026-11-22T21:00+00:00",
        "commit": "abc",
    }
    text = f"head\n{card.BEGIN}\nold\n{card.END}\ntail\n"
    once = card.with_numbers(text, result)
    assert card.with_numbers(once, result) == once
    assert "| stories | 1.235 | 0.71 | 12,345 |" in once and "old" not in once
    assert once.startswith("head\n") and once.endswith("\ntail\n")


def test_script_keeps_the_best_of_its_tries(prepared, tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[3] / "experiments" / "train_parent_offline.py"
    folders = {f"--{name}": tmp_path / name for name in ("work", "out")} | {"--tokens": prepared}
    shape = [f"shape.{key}={value}" for key, value in vars(SHAPE).items()]
    options = ["schedule.batch=8", "schedule.validations=1", "--try", "schedule.steps=1"]
    options += ["--try", "schedule.steps=15", "--try", "schedule.steps=2"]
    arguments = [str(word) for pair in folders.items() for word in pair]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, *shape, *options])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runpy.run_path(str(script), run_name="__main__")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [t["schedule"]["steps"] for t in found["tries"]] == [1, 15, 2]
    assert found["steps"] == 15 and found["valid"] == found["tries"][1]["valid"]
    weights = [tmp_path / folder / "model.safetensors" for folder in ("out", "work/try1/export")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "steps 15" not in capsys.readouterr().out  # no time limit: nothing is measured first


def test_recipe_takes_other_text_and_refuses_misspelt_settings():
    changes = ("data.train.gutenberg.path=x.txt", "~data.train.tinystories", "schedule.steps=7")
    config = adaptive.load("train_parent", *changes).config
    assert isinstance(config, TrainParentConfig)
    assert config.data.train == {"gutenberg": Source("x.txt")}
    assert config.schedule == Schedule(steps=7) and config.shape == ParentShape()
    with pytest.raises(UserError, match="repeats"):
        adaptive.load("train_parent", "data.train.tinystories.repeats=2")
    with pytest.raises(UserError, match=r"shape\.kv_heads=3 must divide"):
        adaptive.load("train_parent", "shape.kv_heads=3")
