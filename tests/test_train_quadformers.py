"""The script that trains many ViTs: trainings compose, resume, and stop in time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_images import SIZE, VIT, make_folder

import adaptive
from adaptive.core import UserError
from adaptive.experiments import train_quadformers as script

ROOT = Path(__file__).parents[1]
ALL = list(script.trainings(list(script.STUDIES), list(script.SEEDS)))

RUN = """
import json, pathlib, sys, time
directory = pathlib.Path(sys.argv[1])
def write(name, value):
    (directory / name).write_text(json.dumps(value))
starts = directory / "starts"
starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
if sys.argv[2] == "fails":
    sys.exit(1)
if sys.argv[2] == "slow" and len(starts.read_text()) == 1:
    time.sleep(60)
write("run.json", {"git": {"commit": "abc"}})
write("summary.json", {"accuracy.64": 50.0})
"""


@pytest.mark.parametrize("training", [t for t in ALL if t.seed == 0], ids=lambda t: t.key)
def test_every_training_is_a_run_of_the_recipe(training):
    config = adaptive.load("quadformer_train", *training.arguments(["train.epochs=20"])).config
    default = adaptive.load("quadformer_train", "train.epochs=20").config
    assert config.train.epochs == 20
    assert (config == default) == (training.key == "main/quadtree/0")


def test_trainings_have_names_of_their_own_and_seeds_come_in_turn():
    assert max(Counter(training.key for training in ALL).values()) == 1
    assert [t.seed for t in ALL] == sorted(t.seed for t in ALL)


@pytest.fixture
def runs(monkeypatch):
    """Trainings that are a few lines of Python; ``kind[name]`` says how one behaves."""
    kind: dict[str, str] = {}
    popen, live, most = script.subprocess.Popen, set(), []

    def start(command, *arguments, **options):
        if not str(command[-1]).startswith("hydra.run.dir="):  # git, of the environment
            return popen(command, *arguments, **options)
        directory = command[-1].removeprefix("hydra.run.dir=")
        name = Path(directory).name.rpartition("-")[0]
        process = popen([sys.executable, "-c", RUN, directory, kind.get(name, "")], **options)
        live.add(process)
        most.append(sum(one.poll() is None for one in live))
        return process

    monkeypatch.setattr(script.subprocess, "Popen", start)
    monkeypatch.setattr(script, "POLL_SECONDS", 0.02)
    yield kind, most
    assert all(process.poll() is not None for process in live), "a training was left behind"


def start(tmp_path, *more, studies="main", seeds=("0",)):
    """Side by side unless it says otherwise."""
    files = ["--dir", str(tmp_path / "runs"), "--out", str(tmp_path / "results.json")]
    files += ["--studies", studies, "--seeds", *seeds]
    script.main([*files, *([] if "--at-once" in more else ["--at-once", "3"]), *more])
    return json.loads((tmp_path / "results.json").read_text())


def test_as_many_at_once_as_allowed_and_none_twice(tmp_path, runs):
    record = start(tmp_path, "--at-once", "2")
    assert set(record["trainings"]) == {f"main/{name}/0" for name in script.STUDIES["main"]}
    (one, *_) = record["trainings"].values()
    assert one["summary"] == {"accuracy.64": 50.0} and one["commit"] == "abc"
    assert max(runs[1]) <= 2 and len(runs[1]) == 3
    assert start(tmp_path) == record and len(runs[1]) == 3
    with pytest.raises(SystemExit, match="is of .*move it away"):
        start(tmp_path, "--", "train.epochs=20")


def test_what_is_cut_short_goes_on(tmp_path, runs, monkeypatch):
    runs[0]["uniform"] = "slow"

    def monotonic() -> float:  # time is up when the others are done, on however busy a machine
        results = tmp_path / "results.json"
        recorded = results.is_file() and len(json.loads(results.read_text())["trainings"]) == 2
        started = list((tmp_path / "runs" / "main" / "uniform-0").glob("starts"))
        return 10.0 if recorded and started else 0.0

    with monkeypatch.context() as patch:
        patch.setattr(script, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
        with pytest.raises(SystemExit, match="1 trainings are not done: the same command goes on"):
            start(tmp_path, "--at-once", "3", "--seconds", "2")
    record = start(tmp_path)
    assert len(record["trainings"]) == 3
    starts = {d.name: (d / "starts").read_text() for d in (tmp_path / "runs" / "main").iterdir()}
    assert starts == {"quadtree-0": "x", "uniform-0": "xx", "centre-0": "x"}


def test_one_that_fails_does_not_stop_the_others(tmp_path, runs):
    runs[0]["quadtree"] = "fails"
    with pytest.raises(SystemExit, match="1 trainings are not done"):
        start(tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record["trainings"]) == {"main/uniform/0", "main/centre/0"}


def test_mistakes_are_told_before_anything_starts(tmp_path, runs):
    with pytest.raises(SystemExit, match="error: .*train.epocs"):
        start(tmp_path, "--", "train.epocs=20")
    assert not runs[1]


# --- in turn, in one process ---


@pytest.fixture
def turns(monkeypatch, tmp_path):
    """Trainings that write what a run writes; ``does[name]`` is what one does before."""
    does: dict[str, Callable[[], None]] = {}
    load, order = adaptive.load, []

    def loaded(recipe, *overrides):
        if not any(override.startswith("seed=") for override in overrides):
            return load(recipe, *overrides)

        def run(directory):
            name = directory.name.rpartition("-")[0]
            order.append(name)
            does.get(name, lambda: None)()
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "run.json").write_text(json.dumps({"git": {"commit": "abc"}}))
            (directory / "summary.json").write_text(json.dumps({"accuracy.64": 50.0}))

        return SimpleNamespace(run=run)

    monkeypatch.setattr(script.adaptive, "load", loaded)
    for name, value in script.surroundings(tmp_path).items():  # which the script would leave set
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    limits = ("recompile_limit", "accumulated_recompile_limit")
    with torch._dynamo.config.patch({name: getattr(torch._dynamo.config, name) for name in limits}):
        yield does, order
    for number, handler in before.items():
        signal.signal(number, handler)


def test_in_turn_a_failure_stops_no_other_and_what_is_done_is_not_done_again(tmp_path, turns):
    does, order = turns

    def fail():
        raise UserError("no such prior")

    does["quadtree"] = fail
    with pytest.raises(SystemExit, match="1 trainings are not done"):
        start(tmp_path, "--at-once", "1")
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record["trainings"]) == {"main/uniform/0", "main/centre/0"}
    del does["quadtree"]
    assert len(start(tmp_path, "--at-once", "1")["trainings"]) == 3
    assert order == ["quadtree", "uniform", "centre", "quadtree"]


def test_in_turn_time_that_is_up_is_heard_as_a_signal_to_stop(tmp_path, turns):
    does, order = turns
    does["uniform"] = lambda: time.sleep(60)
    with pytest.raises(SystemExit, match="2 trainings are not done: the same command goes on"):
        start(tmp_path, "--at-once", "1", "--seconds", "1.5")
    assert order == ["quadtree", "uniform"]
    assert list(json.loads((tmp_path / "results.json").read_text())["trainings"]) == [
        "main/quadtree/0"
    ]


def test_in_turn_an_interruption_is_none_of_time(tmp_path, turns):
    does, _ = turns
    does["quadtree"] = lambda: signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit, match="interrupted, nothing is lost"):
        start(tmp_path, "--at-once", "1", "--seconds", "60")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


DRIVER = """
import sys
from adaptive.experiments import train_quadformers as script
script.STUDIES = {"main": {"quadtree": ()}}
script.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_training_does_not_depend_on_those_before_it(tmp_path, monkeypatch):
    """Real ones, compiled (in processes where nothing checks shapes, which compilers do not like):
    the second seed runs programs that were compiled for the first."""
    for split in ("train", "valid"):
        make_folder(tmp_path / split, each=4)
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    small = [f"data.root={tmp_path}", "data.train=train", "data.valid=valid", "device=cpu"]
    small += [f"model.size={SIZE}", "model.patch=8", "model.max_patch=32", "train.num_tokens=[7]"]
    small += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]
    small += ["train.epochs=2", "train.batch=4", "train.warmup_epochs=0", "train.compile=true"]
    weights = []
    for name, seeds in (("both", "01"), ("alone", "1")):
        files = ["--dir", str(tmp_path / name), "--out", str(tmp_path / f"{name}.json")]
        arguments = [*files, "--studies", "main", "--seeds", *seeds, "--", *small]
        subprocess.run([sys.executable, "-c", DRIVER, *arguments], check=True, cwd=ROOT)
        assert len(json.loads((tmp_path / f"{name}.json").read_text())["trainings"]) == len(seeds)
        run = tmp_path / name / "main" / "quadtree-1"
        weights.append(load_file(run / "artifacts" / "export" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name
