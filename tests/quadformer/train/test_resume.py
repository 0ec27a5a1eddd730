"""A training that is cut short goes on from its checkpoint and ends with the same bits."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_training import asked_of, batch_of, make_trainer, weights_of

from adaptive.core.training import load_checkpoint, save_checkpoint
from adaptive.quadformer.train import CHECKPOINT

PROGRAM = Path(__file__).with_name("kill_training.py")


class Interrupted(Exception):
    pass


def interrupted(trainer, step):
    """Runs until a step has begun."""
    update = trainer.update

    def until(number, batch):
        if number == step:
            raise Interrupted
        return update(number, batch)

    trainer.update = until
    with contextlib.suppress(Interrupted):
        trainer.run()
    return trainer


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2}, {"ema": 0.0}, {"kind": "detail"}], ids=str
)
def test_an_interruption_leaves_no_trace(tmp_path, changes):
    whole = make_trainer(tmp_path / "whole", **changes)
    whole.run()
    assert whole.step == 9
    interrupted(make_trainer(tmp_path / "cut", **changes), 5)
    resumed, steps = make_trainer(tmp_path / "cut", **changes), []
    update = resumed.update
    resumed.update = lambda step, batch: steps.append(step) or update(step, batch)
    resumed.run()
    assert steps == [5, 6, 7, 8]
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_seeds_differ_and_repeat(tmp_path):
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = make_trainer(tmp_path / name, seed=seed, epochs=2)
        trainer.run()
        found.append(weights_of(trainer))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_nothing_is_saved_before_it_is_time(tmp_path):
    make_trainer(tmp_path, checkpoint_seconds=1e9).run()
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_checkpoint_is_whole_or_not_there(tmp_path, monkeypatch):
    interrupted(make_trainer(tmp_path), 4)

    def torn(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        make_trainer(tmp_path).run()
    trainer = make_trainer(tmp_path)
    path = tmp_path / CHECKPOINT
    step, _ = load_checkpoint(path, trainer.models, trainer.optimizer)
    assert step == 4 and [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_loses_nothing(tmp_path, number):
    """In the middle of a step, long before it is time to save."""
    before = signal.signal(number, signal.default_int_handler)  # as the command line does
    try:
        whole = make_trainer(tmp_path / "whole")
        whole.run()
        cut = make_trainer(tmp_path / "cut", checkpoint_seconds=1e9)
        average = cut.ema.update

        def told(model, step):
            if step == 5:  # the model has moved, its average has not
                signal.raise_signal(number)
            average(model, step)

        cut.ema.update = told
        with pytest.raises(KeyboardInterrupt):
            cut.run()
        assert cut.step == 5
        resumed = make_trainer(tmp_path / "cut", checkpoint_seconds=1e9)
        calls = asked_of(resumed.model)
        resumed.run()
        assert len(calls) == 4 and torch.equal(weights_of(resumed), weights_of(whole))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_pace_and_savings_begin_anew_after_a_resume(tmp_path, monkeypatch):
    """However long the training took before; a step takes a second by this clock."""
    trainer = make_trainer(tmp_path)
    trainer.update(0, batch_of(trainer))
    save_checkpoint(tmp_path / CHECKPOINT, 1, trainer.models, trainer.optimizer, 1000.0)
    records, saved, clock = [], [], itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(
        "adaptive.quadformer.train.trainer.save_checkpoint", lambda _, step, *__: saved.append(step)
    )
    changes = {"epochs": 10, "checkpoint_seconds": 12.0, "validate_epochs": 100}
    resumed = make_trainer(tmp_path, log=lambda **r: records.append(r), **changes)
    resumed.run()
    first = records[0]
    # More than ten seconds after the start: 11 steps, with a look at the clock each.
    assert first["step"] == 12 and first["images_per_second"] == pytest.approx(8.0)
    assert first["eta"] == pytest.approx(18.0)
    assert saved[0] >= 12 and 1028 <= resumed.seconds <= 1036


@pytest.mark.slow
def test_sigkill(tmp_path):
    """In processes: killed in each epoch, and resumed."""

    def train(name, *kill):
        command = [sys.executable, str(PROGRAM), str(tmp_path / name)]
        result = tmp_path / f"{name}.safetensors"
        return subprocess.run([*command, str(result), *kill], capture_output=True, text=True)

    done = train("whole")
    assert done.returncode == 0, done.stderr
    seen = []
    for step in (2, 4, 7):
        process = train("killed", str(step))
        assert process.returncode == -signal.SIGKILL, process.stderr
        seen += map(int, process.stdout.split())
    process = train("killed")
    assert process.returncode == 0, process.stderr
    seen += map(int, process.stdout.split())
    assert seen == sorted([*range(9), 2, 4, 7])
    results = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("whole", "killed")]
    assert results[0] == results[1]
