"""The training loop."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_parent import SCHEDULE, SHAPE

from adaptive.llm_puzzle.pretrain import model, tokens, train
from adaptive.llm_puzzle.pretrain.checkpoint import load_checkpoint, save_checkpoint
from adaptive.llm_puzzle.pretrain.export import export_parent
from adaptive.llm_puzzle.pretrain.settings import Schedule
from adaptive.llm_puzzle.pretrain.tokenizer import EOS_ID


def run_trainer(
    prepared: Path, work: Path, schedule: Schedule = SCHEDULE, **options
) -> train.Trainer:
    work.mkdir(exist_ok=True)
    options = {"log": lambda **record: None} | options
    trainer = train.Trainer(prepared, work, SHAPE, schedule, device="cpu", **options)
    trainer.run()
    return trainer


@pytest.mark.parametrize(("optimizer", "dropout"), [("muon", 0.0), ("muon", 0.2), ("adamw", 0.0)])
def test_training_learns_and_resumes_bit_by_bit(prepared, tmp_path, optimizer, dropout):
    schedule = Schedule(**{**vars(SCHEDULE), "optimizer": optimizer, "dropout": dropout})
    whole = run_trainer(prepared, tmp_path / "whole", schedule)
    assert whole.losses["stories"]["loss"] < math.log(SHAPE.vocab) - 0.3

    class Killed(Exception):
        pass

    def kill(trainer: train.Trainer) -> None:
        if trainer.step >= 8:
            raise Killed

    with pytest.raises(Killed):
        run_trainer(prepared, tmp_path / "cut", schedule, on_validation=kill)
    records = []
    resumed = run_trainer(
        prepared, tmp_path / "cut", schedule, log=lambda **record: records.append(record)
    )
    assert records[0] == {"step": 8, "steps": 12, "resumed": True}
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    # A run that had finished is only read.
    records.clear()
    again = run_trainer(
        prepared, tmp_path / "whole", schedule, log=lambda **record: records.append(record)
    )
    assert [set(r) for r in records] == [{"step", "steps", "resumed"}, {"step", "valid.stories"}]
    assert again.step == 12 and again.losses == whole.losses


def test_seconds_choose_the_steps_and_leave_no_trace(prepared, tmp_path):
    """A timed run of as many steps as an untimed one ends with the same weights."""
    timed = Schedule(**{**vars(SCHEDULE), "seconds": 60.0})
    first = run_trainer(prepared, tmp_path / "timed", timed)
    second = run_trainer(prepared, tmp_path / "plain")
    assert first.step == second.step == SCHEDULE.steps  # the upper limit: 60 s are plenty
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_short_time_cuts_the_steps(prepared, tmp_path):
    schedule = Schedule(**{**vars(SCHEDULE), "seconds": 0.1, "steps": 100_000})
    assert run_trainer(prepared, tmp_path / "short", schedule).step == train.TIMED_STEPS


@given(st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5))
def test_rate_rises_stays_and_falls(steps, warmup, decay):
    schedule = Schedule(learning_rate=2.0, warmup=warmup, decay=decay)
    rates = [schedule.rate(step, steps) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    peak = int(np.argmax(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_checkpoint_round_trip_without_optimizers(tmp_path):
    parent, other = model.build_parent(SHAPE, 0), model.build_parent(SHAPE, 1)
    save_checkpoint(tmp_path / "c.safetensors", parent, [], {"step": 3, "seconds": 1.5})
    assert load_checkpoint(tmp_path / "c.safetensors", other) == {"step": 3, "seconds": 1.5}
    assert all(
        torch.equal(a, b) for a, b in zip(parent.parameters(), other.parameters(), strict=True)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_export_keeps_the_better_half_precision(prepared, tmp_path):
    from safetensors import safe_open

    parent = model.build_parent(SHAPE, 0)
    validation = tokens.TokenData(prepared).validation(SHAPE.context)
    found = export_parent(parent, validation, prepared, tmp_path)
    assert found["rounding"][found["dtype"]] == min(found["rounding"].values())
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
        assert "lm_head.weight" not in names  # tied
        assert {str(file.get_tensor(name).dtype) for name in names} == {f"torch.{found['dtype']}"}
    assert found["bytes"] < 2 * found["parameters"] + 4000
    assert len(found["samples"]) == 3
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == EOS_ID
