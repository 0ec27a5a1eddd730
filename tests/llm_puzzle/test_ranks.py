"""Puzzle on several processes: the same child, and no harm done when one of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_puzzle import ROOFLINE
from torch.testing import assert_close

SETTINGS = [
    *ROOFLINE,
    "+exp=puzzle_tiny",
    "data.length=24",
    "data.tokens=1500",
    "data.validation_tokens=300",
    "distill.tokens=300",
    "score.tokens=200",
    "verify.seconds=0.1",
    "gkd.tokens=600",
    "baselines=[]",
    "search.frontier=[0.8,0.5]",
]
# Medians of times, and what is computed from them.
TIMES = (
    "latency.",
    "speedup.",
    "bld.",
    "coupled.tokens_per_second",
    "coupled.mfu",
    "search.seconds",
    "memory.error",
    "scoring.",
)


def start(parent: Path, directory: Path, processes: int, *more: str) -> subprocess.Popen:
    """A run on so many processes, with a log file beside its directory."""
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "adaptive.run"]
    settings = [*SETTINGS, f"parent={parent}", f"hydra.run.dir={directory}", *more]
    with open(f"{directory}.log", "a") as log:
        return subprocess.Popen(
            [*command, *settings],
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def finish(process: subprocess.Popen, directory: Path) -> dict[str, Any]:
    log = Path(f"{directory}.log")
    assert process.wait(300) == 0, log.read_text()[-3000:]
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def alone(parent_dir, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("ranks") / "alone"
    return directory, finish(start(parent_dir, directory, 1), directory)


def same(ours: Path, theirs: Path) -> None:
    """Libraries and scores agree to rounding."""
    a, b = (path / "artifacts" / "library" for path in (ours, theirs))
    names = sorted(path.relative_to(a) for path in a.rglob("*.safetensors"))
    assert names == sorted(path.relative_to(b) for path in b.rglob("*.safetensors"))
    assert len(names) == 12
    for name in names:
        weights = load_file(b / name)
        for key, weight in load_file(a / name).items():
            assert_close(weight, weights[key], rtol=1e-3, atol=1e-4)
    scores = [json.loads((p / "artifacts/scores/scores.json").read_text()) for p in (ours, theirs)]
    for x, y in zip(*scores, strict=True):
        for row, other in zip(x["kl"], y["kl"], strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-5)


def told(summary: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in summary.items() if not k.startswith(TIMES)}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_make_the_child_of_one(parent_dir, alone, tmp_path, processes):
    """Four share three layers: one has nothing to distil."""
    directory = tmp_path / "run"
    summary = finish(start(parent_dir, directory, processes), directory)
    same(directory, alone[0])
    wanted = told(alone[1])
    assert told(summary).keys() == wanted.keys()
    for name, value in told(summary).items():
        exact = not isinstance(value, float)
        assert value == (wanted[name] if exact else pytest.approx(wanted[name], rel=1e-3, abs=1e-4))
    # The others say nothing, so the log reads like that of one process.
    assert Path(f"{directory}.log").read_text().count("[library] starts") == 1


@pytest.mark.slow
def test_two_processes_train_the_pairs_of_one(parent_dir, tmp_path):
    """After a first search; the pairs of a layer are trained where the layer is."""
    settings = ("distill.coupled_tokens=300", "budget.latency=50%")
    found, pairs = [], []
    for processes in (1, 2):
        directory = tmp_path / str(processes)
        summary = finish(start(parent_dir, directory, processes, *settings), directory)
        found.append(told(summary))
        coupled = directory / "artifacts" / "coupled"
        pairs.append({p.relative_to(coupled): load_file(p) for p in coupled.rglob("block-*")})
    assert pairs[0].keys() == pairs[1].keys() and len(pairs[0]) == found[0]["coupled.pairs"] > 1
    for name, weights in pairs[0].items():
        for key, weight in weights.items():
            assert_close(pairs[1][name][key], weight, rtol=1e-3, atol=1e-4)
    for name in ("coupled.loss_start", "coupled.loss", "coupled.kl", "child.kl.predicted"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_two_processes_heal_the_child_of_one(parent_dir, tmp_path):
    """The one between two rounds of scoring."""
    found = []
    for processes in (1, 2):
        directory = tmp_path / str(processes)
        settings = ("search.rounds=2", "gkd.tokens=3600", "budget.latency=50%")
        found.append(told(finish(start(parent_dir, directory, processes, *settings), directory)))
    for name in ("rounds.1.kl", "rounds.2.kl", "child.gkd.tokens", "child.kl.gkd"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-3, abs=1e-4)


def worker(process: subprocess.Popen, rank: int) -> int:
    """Process id of a rank of torchrun's."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            above = (entry / "status").read_text().partition("PPid:")[2].split()[0]
        except OSError:
            continue
        if int(above) == process.pid and f"RANK={rank}".encode() in environment:
            return int(entry.name)
    raise AssertionError(f"there is no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_stops_the_others_and_the_run_goes_on(parent_dir, alone, tmp_path, rank):
    directory = tmp_path / "run"
    process = start(parent_dir, directory, 2)
    library = directory / "artifacts" / ".library.partial"
    deadline = time.monotonic() + 120
    while not list(library.rglob("*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(worker(process, rank), signal.SIGKILL)
    assert process.wait(120) != 0
    assert not (directory / "summary.json").exists()
    log = Path(f"{directory}.log").read_text()
    if rank:  # the main one is there to tell, once: torchrun stops it, or it notices before
        told_lost = log.count("error: another process of this run has stopped")
        assert told_lost + log.count("interrupted, nothing is lost; to resume:") == 1
    summary = finish(start(parent_dir, directory, 2), directory)
    same(directory, alone[0])
    assert summary["child.kl.gkd"] == pytest.approx(alone[1]["child.kl.gkd"], rel=1e-3)
