from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.run.environment import (
    GpuPeak,
    cpu_name,
    environment,
    git_state,
    package_versions,
    peak_memory,
    resolve_device,
)


def git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(adaptive.__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_commit_is_that_of_the_checkout():
    state = git_state()
    if not git("ls-files", "core/run/environment.py"):
        assert state is None
    else:
        assert state == {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "-s"))}


def test_no_git_is_no_state(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state() is None


def test_versions_are_of_what_the_package_requires():
    versions = package_versions()
    assert versions["adaptive-compute"] == adaptive.__version__
    assert {"torch", "numpy", "hydra-core"} <= versions.keys()
    assert "ruff" not in versions  # an extra


def test_cpu_is_described():
    assert environment("cpu")["device"]["torch"] == "cpu"


@pytest.mark.parametrize(("setting", "hint"), [("cuda:97", "device=auto"), ("gpu", "cuda:N")])
def test_a_device_that_is_not_there_is_a_users_mistake(setting, hint):
    with pytest.raises(UserError, match=re.escape(f"device={setting}") + ".*" + re.escape(hint)):
        resolve_device(setting)


def test_auto_takes_what_there_is(monkeypatch):
    import torch

    for available, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert resolve_device("auto") == device


def test_peak_memory_is_in_bytes():
    assert 20e6 < peak_memory()["host"] < 1e12


def test_the_processor_has_a_name():
    assert cpu_name()


def test_who_begins_to_count_anew_takes_nothing_from_others(monkeypatch):
    """A run, a stage of it, and a measurement in the stage; torch has one count for all."""
    held = {"peak": 7}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: held["peak"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device=None: held.update(peak=2)
    )
    run = GpuPeak()
    held["peak"] = 9
    stage = GpuPeak()
    assert (run.bytes, stage.bytes) == (9, 2)
    held["peak"] = 5
    part = GpuPeak(torch.device("cuda:0"))
    assert (run.bytes, stage.bytes, part.bytes) == (9, 5, 2)
    held["peak"] = 11
    assert run.bytes == stage.bytes == part.bytes == 11 <= peak_memory()["cuda"]


def test_without_a_gpu_nothing_is_counted():
    assert GpuPeak().bytes == 0 and "cuda" not in peak_memory()
