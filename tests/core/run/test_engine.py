from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import toy

from adaptive.core.errors import UserError
from adaptive.core.run import Manifest, RunDir, Stage, atomic_write_text, run_stages
from adaptive.core.run.engine import REPORT


def snapshot(path: Path) -> dict[str, Any]:
    """Everything that a run says, times aside."""
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            files[str(file.relative_to(path))] = file.read_text()
    records = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
    for record in records:
        del record["time"]
    return files | {"metrics": records}


def run_toy(path: Path, **changes: Any) -> dict[str, Any]:
    config = toy.ToyConfig(name="toy", task="toy", items=3, **changes)
    return run_stages(toy.stages(config), RunDir(path), seed=config.seed, device="cpu")


def status(path: Path) -> dict[str, Any]:
    return json.loads((path / "status.json").read_text())


def test_a_run_leaves_what_it_promises(tmp_path):
    summary = run_toy(tmp_path)
    assert status(tmp_path) == {"state": "done", "stage": None, "error": None}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary) == {"items", "toy.sum", "toy.noise"}
    assert (tmp_path / REPORT).read_text() == f"<p>{summary['toy.sum']}</p>"
    manifest = Manifest.read(tmp_path / "artifacts" / "draw")
    assert manifest is not None and manifest.done
    assert list(manifest.files) == ["0.json", "1.json", "2.json"]
    assert not list(tmp_path.rglob(".*"))


def test_running_again_does_no_work(tmp_path, capsys):
    run_toy(tmp_path)
    before = snapshot(tmp_path)
    capsys.readouterr()
    run_toy(tmp_path)
    assert snapshot(tmp_path) == before
    words = capsys.readouterr().err.splitlines()
    assert words == [f"[{name}] done before, kept" for name in ("draw", "add", "report")]


def test_only_what_a_change_reaches_runs_again(tmp_path, capsys):
    first = run_toy(tmp_path, offset=1.0)
    capsys.readouterr()
    second = run_toy(tmp_path, offset=2.0)
    words = capsys.readouterr().err
    assert "[draw] done before, kept" in words
    assert "[add] its configuration or its inputs have changed, runs again" in words
    assert "[report] its configuration or its inputs have changed, runs again" in words
    assert second["toy.sum"] == pytest.approx(first["toy.sum"] + 1)
    assert second["toy.noise"] == first["toy.noise"]  # seeded by stage, whatever was skipped
    records = [(r["stage"], r["step"]) for r in snapshot(tmp_path)["metrics"]]
    assert sorted(records) == [("add", 0), ("draw", 0), ("draw", 1), ("draw", 2)]


def test_another_seed_is_another_result(tmp_path):
    a, b = (run_toy(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert a["toy.sum"] != b["toy.sum"] and a["toy.noise"] != b["toy.noise"]


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_a_damaged_artefact_is_made_again(tmp_path, capsys, damage):
    run_toy(tmp_path)
    before = snapshot(tmp_path)
    victim = tmp_path / "artifacts" / "draw" / "1.json"
    victim.unlink() if damage == "delete" else victim.write_text("0")
    capsys.readouterr()
    run_toy(tmp_path)
    words = capsys.readouterr().err
    assert f"[draw] {victim}" in words and "runs again" in words
    assert "[add] done before, kept" in words  # the same file came out again
    assert {**snapshot(tmp_path), "metrics": 0} == {**before, "metrics": 0}


def test_a_stage_that_makes_something_else_wakes_its_readers(tmp_path):
    made = iter(["a", "b"])
    seen: list[str] = []
    stages = [
        Stage("measure", lambda ctx: atomic_write_text(ctx.dir / "x", next(made))),
        Stage(
            "use", lambda ctx: seen.append((ctx.input("measure") / "x").read_text()), ("measure",)
        ),
    ]
    run_stages(stages, RunDir(tmp_path))
    (tmp_path / "artifacts" / "measure" / "x").unlink()
    run_stages(stages, RunDir(tmp_path))
    assert seen == ["a", "b"]


class Killed(BaseException):
    """Stands in for SIGKILL: once raised, the file system obeys no more."""


def kill_after(monkeypatch: pytest.MonkeyPatch, operations: int) -> None:
    left = [operations]

    def mortal(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    for name in ("replace", "rename", "unlink", "rmdir", "write", "mkdir"):
        monkeypatch.setattr(os, name, mortal(getattr(os, name)))


def test_killed_before_any_file_operation_it_ends_with_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill is no power cut
    config = toy.ToyConfig(name="toy", task="toy", items=1)
    run_stages(toy.stages(config), RunDir(tmp_path / "whole"))
    whole = snapshot(tmp_path / "whole")
    kills = 0
    while True:
        path = tmp_path / str(kills)
        try:
            for operations in (kills, kills // 2):  # killed, and killed again while it resumes
                with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
                    kill_after(patch, operations)
                    run_stages(toy.stages(config), RunDir(path))
        except pytest.fail.Exception:  # it ran to its end: every operation has had its turn
            break
        run_stages(toy.stages(config), RunDir(path))
        assert snapshot(path) == whole, f"killed before operation {kills}"
        kills += 1
    assert kills > 30


def test_a_stage_resumes_inside_what_it_left(tmp_path):
    tries = []

    def work(ctx):
        tries.append((ctx.resumed, sorted(p.name for p in ctx.dir.glob("piece*"))))
        atomic_write_text(ctx.dir / f"piece{len(tries)}", "x")
        if len(tries) < 3:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_stages([Stage("s", work, depends_on=1)], RunDir(tmp_path))
        assert status(tmp_path)["state"] == "failed" and status(tmp_path)["stage"] == "s"
    run_stages([Stage("s", work, depends_on=1)], RunDir(tmp_path))
    assert tries == [(False, []), (True, ["piece1"]), (True, ["piece1", "piece2"])]


def test_the_remains_of_another_configuration_are_not_resumed(tmp_path):
    def work(ctx):
        assert not list(ctx.dir.glob("piece"))
        (ctx.dir / "piece").write_text("x")
        raise UserError("stop")

    for setting in (1, 2):
        with pytest.raises(UserError):
            run_stages([Stage("s", work, depends_on=setting)], RunDir(tmp_path))


def test_a_run_that_fails_takes_back_the_results_of_the_one_before(tmp_path):
    run_toy(tmp_path)
    with pytest.raises(UserError, match="offset"):
        run_toy(tmp_path, fail="user")
    assert not (tmp_path / "summary.json").exists() and not (tmp_path / REPORT).exists()
    assert status(tmp_path) == {
        "state": "failed",
        "stage": "add",
        "error": "offset is not to my taste, write offset=1",
    }


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "x"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # safetensors' words
    ],
)
def test_a_full_disk_is_one_sentence(tmp_path, error):
    def work(ctx):
        raise error

    with pytest.raises(UserError, match="is full: free some space"):
        run_stages([Stage("s", work)], RunDir(tmp_path))
    assert status(tmp_path)["state"] == "failed" and "is full" in status(tmp_path)["error"]


def test_the_status_becomes_failed_even_when_no_new_file_can_be_written(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work(ctx):
        monkeypatch.setattr(Path, "write_bytes", full)
        atomic_write_text(ctx.dir / "x", "y" * 10_000)

    with pytest.raises(UserError, match="is full"):
        run_stages([Stage("s", work)], RunDir(tmp_path))
    assert status(tmp_path)["state"] == "failed" and status(tmp_path)["stage"] == "s"
    assert not list((tmp_path / "artifacts" / ".s.partial").glob(".tmp*"))


def test_an_error_of_the_library_keeps_its_type(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_toy(tmp_path, fail="bug")
    assert status(tmp_path)["error"] == "ZeroDivisionError: one over nothing"


def test_reading_what_was_not_declared_is_an_error(tmp_path):
    stages = [Stage("a", lambda ctx: None), Stage("b", lambda ctx: print(ctx.input("a")))]
    with pytest.raises(AssertionError, match="does not need"):
        run_stages(stages, RunDir(tmp_path))


def test_stages_have_their_own_random_numbers(tmp_path):
    drawn: list[float] = []
    stages = [Stage(name, lambda ctx: drawn.append(random.random())) for name in "ab"]
    run_stages(stages, RunDir(tmp_path))
    assert len(set(drawn)) == 2


def test_a_summary_holds_single_values(tmp_path):
    with pytest.raises(AssertionError, match="'ladder' is not a single value"):
        run_stages([Stage("a", lambda ctx: ctx.summary(ladder=[1, 2]))], RunDir(tmp_path))
