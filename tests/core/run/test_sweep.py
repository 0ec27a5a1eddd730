from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import toy
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.run import Experiment, RunDir
from adaptive.core.run.directory import is_done
from adaptive.core.run.lock import InUseError, holder, locked
from adaptive.core.run.sweep import Sweep, hydra_value


@pytest.fixture(autouse=True)
def registered():
    toy.register()


def experiment(*overrides: str) -> Experiment:
    return adaptive.load("toy", "items=2", *overrides, config_dir=str(toy.RECIPES))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    toy.register()
    directory = tmp_path_factory.mktemp("done")
    experiment().run(directory)
    return directory


def edit(name: str, **values):
    def change(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


@pytest.mark.parametrize(
    "change",
    [
        edit("status.json", state="failed"),
        edit("status.json", state="running"),
        edit("run.json", version="0.0.0"),
        lambda directory: (directory / "summary.json").unlink(),
        lambda directory: (directory / "run.json").write_text("{"),
        lambda directory: (directory / "config.yaml").write_text("name: [toy"),
    ],
)
def test_a_run_is_done_only_if_all_its_files_say_so(done, tmp_path, change):
    for name in ("config.yaml", "run.json", "status.json", "summary.json"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    assert is_done(tmp_path, experiment().config)
    assert not is_done(tmp_path, experiment("offset=7").config)
    change(tmp_path)
    assert not is_done(tmp_path, experiment().config)


def test_two_runs_of_one_directory_are_not_silently_one(tmp_path, capfd):
    sweep, words = Sweep(), "that of seed=0,offset=1.0 and that of seed=3,offset=2.0"
    for overrides in ((), (), ("offset=2", "seed=3")):
        sweep.run(tmp_path / "x", lambda o=overrides: experiment(*o))
    assert not sweep.finish()
    err = capfd.readouterr().err
    assert err.count(words) == 2  # when it happens, and in the end
    assert str(tmp_path / "x") in sweep.refused[0] and "hydra.sweep.subdir" in sweep.refused[0]
    # The first has its directory to itself: its result, and its status.
    assert is_done(tmp_path / "x", experiment().config)


def test_a_run_knows_its_overrides_and_version(done):
    record = json.loads((done / "run.json").read_text())
    assert record["overrides"] == ["items=2"]
    assert record["version"] == adaptive.__version__


def test_what_is_done_is_kept_and_what_fails_does_not_stop_the_rest(tmp_path, capfd):
    sweep = Sweep("THE COMMAND")
    runs = {"a": (), "b": ("fail=bug",), "c": ("fail=user",), "d": ("offset=3",)}
    for name, overrides in runs.items():
        sweep.run(tmp_path / name, lambda o=overrides: experiment(*o))
    assert not sweep.finish()
    assert [sweep.outcomes[tmp_path / n] for n in runs] == ["done", "failed", "failed", "done"]
    assert sweep.errors[tmp_path / "b"] == "ZeroDivisionError: one over nothing"
    err = capfd.readouterr().err
    assert "4 runs in " in err and "2 done, 2 failed" in err
    assert f"failed: {tmp_path / 'c'}: offset is not to my taste" in err
    assert "to run what failed again: THE COMMAND\n" in err
    assert "Traceback" in err  # of the bug, which is ours

    again = Sweep("THE COMMAND")
    before = (tmp_path / "a" / "run.json").read_bytes()
    again.run(tmp_path / "a", experiment)
    assert again.finish() and again.outcomes == {tmp_path / "a": "done before"}
    assert (tmp_path / "a" / "run.json").read_bytes() == before


def test_a_run_that_cannot_begin_has_a_status_that_says_why(tmp_path):
    def mistaken() -> Experiment:
        raise UserError("items=0 must be at least 1")

    sweep = Sweep()
    sweep.run(tmp_path / "x", mistaken)
    status = json.loads((tmp_path / "x" / "status.json").read_text())
    assert status == {"state": "failed", "stage": None, "error": "items=0 must be at least 1"}


def test_what_is_done_stays_done_when_another_experiment_wants_its_place(tmp_path):
    experiment().run(tmp_path)
    sweep = Sweep()
    sweep.run(tmp_path, lambda: adaptive.load("collect"))
    assert "holds a run of 'toy'" in sweep.errors[tmp_path]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_a_run_that_another_process_is_at_is_waited_for(tmp_path, capfd):
    """The other launch of the sweep finishes the run; this one finds it done."""
    RunDir(tmp_path)
    held, release = threading.Event(), threading.Event()

    def other() -> None:
        with locked(tmp_path):
            held.set()
            release.wait()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    sweep = Sweep()
    sweep.run(tmp_path, experiment)
    assert sweep.outcomes == {}  # neither done nor failed
    with pytest.raises(InUseError, match="in use by process"):
        experiment().run(tmp_path)
    threading.Timer(0.3, release.set).start()
    start = time.monotonic()
    assert sweep.finish()
    assert time.monotonic() - start >= 0.3
    thread.join()
    assert sweep.outcomes == {tmp_path: "done"}
    assert "waiting for process" in capfd.readouterr().err


def test_nobody_holds_a_directory_that_is_free(tmp_path):
    assert holder(tmp_path) is None
    with locked(tmp_path):
        assert str(holder(tmp_path)).startswith("process ")
    assert holder(tmp_path) is None


@given(st.text(min_size=1).filter(lambda text: "${" not in text))
def test_any_text_is_one_value_to_hydra(text):
    (override,) = OverridesParser.create().parse_overrides([f"key={hydra_value(text)}"])
    assert str(override.value()) == text


def test_a_sweep_that_is_done_imports_nothing_heavy(tmp_path):
    for offset in (1, 2):
        experiment(f"offset={offset}").run(tmp_path / f"runs/toy/sweep/items=2,offset={offset}")
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))\n"
        "import runpy; sys.argv = ['toy', '-m', '+exp=toy', 'items=2', 'offset=1,2']\n"
        f"runpy.run_path({toy.__file__!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code]
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.endswith("False\n") and again.stderr.count(": done before") == 2


def test_a_run_that_another_launch_has_ended_meanwhile_is_not_begun_again(tmp_path, monkeypatch):
    sweep = Sweep()
    monkeypatch.setattr(sweep, "wanted", lambda directory, composed: composed())  # it looked early
    sweep.run(tmp_path / "one", experiment)
    sweep.run(tmp_path / "one", experiment)
    assert sweep.outcomes == {tmp_path / "one": "done before"}
    assert json.loads((tmp_path / "one/run.json").read_text())["attempts"] == 1
