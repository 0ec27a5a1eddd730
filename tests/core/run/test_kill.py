"""A run that is killed, truly and more than once, ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import toy

KILLS = 3


def start(directory: Path) -> subprocess.Popen:
    arguments = ["+exp=toy", "items=8", "pause=0.05", f"hydra.run.dir={directory}"]
    command = [sys.executable, toy.__file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until_it_runs(process: subprocess.Popen, directory: Path) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("["):  # of the first stage
            return
    raise AssertionError(f"no stage began in {directory}")


def records(directory: Path) -> list:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return sorted((r["stage"], r["step"], r.get("value")) for r in map(json.loads, lines))


def test_sigkill_at_random_moments(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    chance = random.Random(5)
    with start(whole) as process:
        assert process.wait() == 0
    deaths = 0
    for _ in range(KILLS):
        with start(killed) as process:
            wait_until_it_runs(process, killed)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            deaths += process.wait() == -signal.SIGKILL
    assert deaths > 0, "every run ended before it was killed"
    with start(killed) as process:
        assert process.wait() == 0
    for name in ("summary.json", "report.html", "status.json"):
        assert (killed / name).read_text() == (whole / name).read_text()
    assert records(killed) == records(whole)
    assert not list(killed.rglob(".tmp-*")) and not list(killed.rglob(".*.partial"))


def test_sigterm_is_an_interruption_that_says_how_to_go_on(tmp_path):
    with start(tmp_path) as process:
        wait_until_it_runs(process, tmp_path)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 130
    assert err.startswith("\ninterrupted, nothing is lost; to resume: python -m adaptive.run ")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
