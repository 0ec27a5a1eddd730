from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

import adaptive
from adaptive import config, run
from adaptive.core.run.recipes import recipes


@pytest.fixture
def command_line(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process and returns exit code, stdout and stderr."""
    toy.register()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "TASK_MODULES", ())
    monkeypatch.setattr(run.signal, "signal", lambda *args: None)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["adaptive", "--config-dir", str(toy.RECIPES), *arguments])
        code = 0
        try:
            run.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


MISTAKES = {
    "": "no experiment is named: add +exp=NAME, where NAME is one of",
    "seed=1": "no experiment is named: add +exp=NAME",
    "exp=toy": "write +exp=NAME with the plus sign",
    "+exp=tooy": "unknown recipe 'tooy', choose one of",
    "task=tooy": "unknown task 'tooy', choose one of",
    "+exp=toy ofset=1": "unknown setting 'ofset'",
    "+exp=toy +typo=1": "unknown setting 'typo'",
    "+exp=toy budget.latancy=1": "did you mean 'budget.latency'?",
    "+exp=toy +budget.latancy=1": "did you mean 'budget.latency'?",
    "+exp=toy group/key=1": "unknown setting 'group/key'",
    "+exp=toy +group/key=1": "unknown setting 'group/key'",
    "+exp=toy hydra/launcher=no": "unknown hydra/launcher 'no', choose one of",
    "+exp=toy cluster=pbs": "unknown cluster 'pbs', choose one of local, ray, slurm",
    "+exp=toy cluster=local hydra.launcher.n_job=2": "did you mean 'hydra.launcher.n_jobs'?",
    "+exp=toy cluster=local hydra.launcher.n_jobs=0": "hydra.launcher.n_jobs=0 runs nothing",
    "+exp=toy cluster=ray hydra.launcher.processes=0": "hydra.launcher.processes=0 must be at",
    "+exp=toy hydra.run.dri=x": "did you mean 'hydra.run.dir'?",
    "+exp=toy seed=abc": "seed=abc: value 'abc' of type 'str' could not be converted to Integer",
    "+exp=toy items=[3]": "items=[3]: value '[3]'",
    "+exp=toy budget=3": "budget=3: this is a group of settings",
    "+exp=toy seed=null": "seed=null: field 'seed' is not Optional",
    "+exp=toy seed": "cannot read 'seed': write KEY=VALUE",
    "+exp=toy budget.latency=>3": "with quotes around a value",
    "+exp=toy seed=1,2": "add -m to run one experiment for each",
    "+exp=toy items=0": "items=0 must be at least 1",
    "+exp=toy device=cuda:97": "device=cuda:97: torch sees",
    "+exp=toy hydra.run.dir=/dev/null/x": "cannot write to /dev/null/x",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(command_line, arguments, tmp_path):
    code, out, err = command_line(*arguments.split())
    assert code == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert MISTAKES[arguments] in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ask", ["hydra.verbose=true", "HYDRA_FULL_ERROR"])
def test_who_asks_for_it_gets_the_traceback(command_line, monkeypatch, ask):
    extra = [ask]
    if ask == "HYDRA_FULL_ERROR":
        monkeypatch.setenv(ask, "1")
        extra = []
    with pytest.raises(adaptive.core.errors.UserError, match="unknown setting"):
        command_line("+exp=toy", "+typo=1", *extra)


def test_a_run_ends_with_its_results_and_its_report(command_line, tmp_path):
    code, out, err = command_line("+exp=toy", "hydra.run.dir=r", "items=2")
    assert code == 0
    assert out.splitlines()[-1] == "report: r/report.html"
    assert "toy.sum" in out and "[draw] starts" in err
    found = {path.name for path in (tmp_path / "r").iterdir()}
    assert found == {
        *("config.yaml", "run.json", "status.json", "metrics.jsonl", "summary.json"),
        *("report.html", "artifacts", ".lock"),
    }
    command = json.loads((tmp_path / "r" / "run.json").read_text())["command"]
    assert command.endswith("+exp=toy hydra.run.dir=r items=2")


def test_runs_go_below_their_name_and_the_time(command_line, tmp_path):
    command_line("+exp=toy", "items=2")
    (directory,) = (tmp_path / "runs" / "toy").iterdir()
    started = time.mktime(time.strptime(directory.name, "%Y-%m-%d_%H-%M-%S"))
    assert abs(time.time() - started) < 600


@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        ("user", 1, "error: offset is not to my taste, write offset=1\n"),
        ("disk", 1, "error: the disk that holds r is full"),
        ("interrupt", 130, "interrupted, nothing is lost; to resume: python -m adaptive.run"),
    ],
)
def test_a_run_that_fails_says_why_and_keeps_what_it_has(command_line, tmp_path, fail, code, words):
    found, out, err = command_line("+exp=toy", f"fail={fail}", "hydra.run.dir=r")
    assert (found, out) == (code, "")
    assert words in err and "Traceback" not in err
    status = json.loads((tmp_path / "r" / "status.json").read_text())
    assert status["state"] == "failed" and status["stage"] == "add"
    assert (tmp_path / "r" / "artifacts" / "draw" / "manifest.json").exists()
    assert not (tmp_path / "r" / "summary.json").exists()


def test_an_error_of_ours_is_not_dressed_up(command_line):
    with pytest.raises(ZeroDivisionError):
        command_line("+exp=toy", "fail=bug", "hydra.run.dir=r")


def test_how_to_resume_names_the_directory(command_line):
    _, _, err = command_line("+exp=toy", "fail=interrupt")
    assert "hydra.run.dir=runs/toy/" in err


def test_a_sweep_goes_on_after_a_failure_and_resumes(command_line, tmp_path):
    sweep = ("-m", "+exp=toy", "items=2", "offset=1,2", "fail=user,''")
    code, out, err = command_line(*sweep)
    assert code == 1 and err.count("error in runs/toy/sweep/") == 2
    directories = sorted((tmp_path / "runs" / "toy" / "sweep").iterdir())
    states = [json.loads((d / "status.json").read_text())["state"] for d in directories]
    assert sorted(states) == ["done", "done", "failed", "failed"]
    _, _, err = command_line(*sweep)
    assert sorted((tmp_path / "runs" / "toy" / "sweep").iterdir()) == directories
    assert err.count(": done before") == 2 and "[report]" not in err
    assert "4 runs in " in err and "2 done before, 2 failed" in err
    assert "collect them: python -m adaptive.run +exp=collect runs=runs/toy/sweep\n" in err


def test_a_sweep_job_with_a_wrong_value_has_a_status(command_line, tmp_path):
    code, _, err = command_line("-m", "+exp=toy", "items=0,2")
    assert code == 1 and "error in runs/toy/sweep/items=0: items=0 must be" in err
    sweep = tmp_path / "runs" / "toy" / "sweep"
    status = json.loads((sweep / "items=0" / "status.json").read_text())
    assert status["state"] == "failed" and "items=0" in status["error"]
    assert json.loads((sweep / "items=2" / "status.json").read_text())["state"] == "done"


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_help_names_the_recipes_and_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, atexit; sys.argv = ['adaptive', '--help']; from adaptive.run import main\n"
        "atexit.register(lambda: print(sorted({m.partition('.')[0] for m in sys.modules})))\n"
        "main()"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    help_text, _, modules = done.stdout.rstrip().rpartition("\n")
    assert "+exp=NAME" in help_text
    assert all(f"\n  {name} " in help_text for name in recipes())
    for heavy in ("torch", "transformers", "ortools", "matplotlib", "timm", "cv2", "scipy"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize(
    "arguments, whole",
    [
        (["--help"], True),
        (["-h", "--config-dir", "mine"], True),
        (["--help", "+exp=puzzle_tiny"], False),  # composed, so that mistakes in it are told
        (["+exp=puzzle_tiny"], False),
        (["--hydra-help"], False),
    ],
)
def test_the_list_of_recipes_is_told_without_the_tasks(arguments, whole):
    assert run.asks_help(arguments) == whole


def test_the_module_and_the_console_script_are_one():
    module = python("-m", "adaptive.run", "+exp=no_such_recipe")
    script = Path(sys.executable).with_name("adaptive")
    installed = subprocess.run([script, "+exp=no_such_recipe"], capture_output=True, text=True)
    assert module.returncode == installed.returncode == 1
    assert module.stderr == installed.stderr
    assert "unknown recipe 'no_such_recipe'" in module.stderr
