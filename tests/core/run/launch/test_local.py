from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from adaptive.core.errors import UserError
from adaptive.core.run.launch import JoblibConfig, local
from adaptive.core.run.launch.job import Job


def jobs(tmp_path: Path, count: int, code: str) -> list[Job]:
    return [Job(f"run{i}", (sys.executable, "-c", code), str(tmp_path)) for i in range(count)]


SHOW = "import os; print('saw', os.environ.get({!r}))"


def seen(tmp_path: Path, count: int) -> list[str]:
    texts = [(tmp_path / f"run{i}" / "job.log").read_text() for i in range(count)]
    return [text.splitlines()[-1].removeprefix("saw ") for text in texts]


@pytest.mark.parametrize(
    ("visible", "processes", "n_jobs", "expected"),
    [
        ("4,7", 1, None, {"4", "7"}),  # a GPU each
        ("4,5,6,7", 2, None, {"4,5", "6,7"}),  # a pair each
        ("4", 1, 2, {"4"}),  # more runs than GPUs share what there is
        ("", 1, None, {""}),
    ],
)
def test_each_run_has_its_own_gpus(tmp_path, monkeypatch, visible, processes, n_jobs, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    settings = JoblibConfig(processes=processes, n_jobs=n_jobs)
    code = SHOW.format("CUDA_VISIBLE_DEVICES") + "; import time; time.sleep(0.3)"
    ended = list(local.launch(jobs(tmp_path, 4, code), settings))
    assert sorted(job.directory for job, _ in ended) == [f"run{i}" for i in range(4)]
    assert {status for _, status in ended} == {0}
    assert set(seen(tmp_path, 4)) == expected


def test_runs_side_by_side_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local.os, "cpu_count", lambda: 8)
    code = SHOW.format("OMP_NUM_THREADS")
    list(local.launch(jobs(tmp_path, 2, code), JoblibConfig(n_jobs=2)))
    assert seen(tmp_path, 2) == ["4", "4"]
    list(local.launch(jobs(tmp_path, 1, code), JoblibConfig(n_jobs=1)))
    assert seen(tmp_path, 1) == ["None"]  # alone, a run has them all


def test_a_run_that_dies_does_not_stop_the_rest(tmp_path):
    code = "import os; os.kill(os.getpid(), 9)"
    some = [*jobs(tmp_path, 1, code), *jobs(tmp_path, 3, "exit(0)")[1:]]
    status = {job.directory: status for job, status in local.launch(some, JoblibConfig(n_jobs=2))}
    assert status == {"run0": -9, "run1": 0, "run2": 0}


def test_runs_are_stopped_all_at_once_when_nobody_waits_for_them(tmp_path):
    """Each takes a second to end, and what has not begun does not begin."""
    slow = (
        "import signal, sys, time; from pathlib import Path;"
        "stop = lambda *_: (time.sleep(1), Path(sys.argv[1]).touch(), sys.exit(130));"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(60)"
    )
    some = [*jobs(tmp_path, 1, "exit(0)"), *jobs(tmp_path, 9, slow)[1:]]
    some = [
        Job(j.directory, (*j.command, str(tmp_path / j.directory / "ended")), j.cwd) for j in some
    ]
    running = local.launch(some, JoblibConfig(n_jobs=4))
    next(running)

    def ready() -> list[Path]:
        return [p.parent for p in tmp_path.glob("run*/job.log") if "\nready" in p.read_text()]

    end = time.monotonic() + 30
    while len(ready()) < 4 and time.monotonic() < end:
        time.sleep(0.05)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 3  # one after another they take four
    time.sleep(0.5)
    assert len(ready()) == 4 and all((run / "ended").exists() for run in ready())
    assert len(list(tmp_path.glob("run*/job.log"))) == 5


def test_gpus_are_counted_without_torch(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: a)'\necho 'GPU 1: H100 (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.gpu_ids() == ["0", "1"]
    tool.unlink()
    assert local.gpu_ids() == []


def test_without_joblib_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[joblib\]'"):
        next(local.launch([], JoblibConfig()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [(JoblibConfig(n_jobs=0), "n_jobs=0 runs nothing"), (JoblibConfig(processes=0), "at least 1")],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        settings.validate()
