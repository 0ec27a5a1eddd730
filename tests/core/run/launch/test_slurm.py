"""The SLURM launcher: with a scheduler that is not there, with a fake one, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fake_slurm
import pytest
import toy

from adaptive.core.errors import UserError
from adaptive.core.run.launch import RayConfig, SlurmConfig, slurm
from adaptive.core.run.launch.job import Job

QUICK = ("hydra.launcher.poll_seconds=0.2", "hydra.launcher.warning_seconds=5")
ITEMS = 6


@pytest.mark.parametrize("missing", ["sbatch", "srun", "squeue", "scontrol"])
def test_a_machine_without_the_scheduler_says_so_in_a_sentence(tmp_path, monkeypatch, missing):
    commands = tuple(name for name in fake_slurm.COMMANDS if name != missing)
    fake_slurm.install(tmp_path / "slurm", commands)
    monkeypatch.setenv("PATH", str(tmp_path / "slurm" / "bin"))
    with pytest.raises(UserError, match=f"command {missing}, which is not here") as error:
        next(slurm.launch([], SlurmConfig()))
    assert "\n" not in str(error.value) and "cluster=local" in str(error.value)


def test_without_submitit_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-compute\[slurm\]'"):
        next(slurm.launch([], SlurmConfig()))


def test_what_the_scheduler_refuses_is_told(tmp_path, monkeypatch):
    for name, value in fake_slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    sbatch = tmp_path / "slurm" / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gold' >&2\nexit 1\n")
    monkeypatch.chdir(tmp_path)
    job = Job("run", (sys.executable, "-c", "exit(0)"), str(tmp_path))
    with pytest.raises(UserError, match="sbatch refuses the jobs.*invalid partition: gold"):
        next(slurm.launch([job], SlurmConfig(partition="gold")))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SlurmConfig(minutes=0), "hydra.launcher.minutes=0 must be at least 1"),
        (SlurmConfig(restarts=-1), "restarts=-1 must be at least 0"),
        (SlurmConfig(poll_seconds=-1), "hydra.launcher.poll_seconds=-1 must be above 0"),
        (
            SlurmConfig(processes=8),
            "launcher.processes=8 needs .* hydra.launcher.gpus=1: set gpus=8",
        ),
        (RayConfig(processes=2, gpus=1.5), "launcher.processes=2 needs .* hydra.launcher.gpus=1.5"),
        (SlurmConfig(scheduler="pbs"), "scheduler='pbs' is unknown"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        settings.validate()


@pytest.mark.parametrize(
    "settings",
    [
        SlurmConfig(processes=8, gpus=8),
        SlurmConfig(processes=8, gpus=0),
        RayConfig(processes=2, gpus=2),
        RayConfig(gpus=0.5),
    ],
)
def test_processes_have_a_gpu_each_or_none(settings):
    settings.validate()


@pytest.mark.parametrize("silent", [2, 1000])
def test_a_scheduler_that_is_silent_for_a_while_is_asked_again(tmp_path, monkeypatch, silent):
    """squeue fails so many times, and knows of one job then."""
    squeue, count = tmp_path / "squeue", tmp_path / "count"
    squeue.write_text(
        f"#!/bin/sh\necho . >> {count}\n"
        f"[ $(wc -l < {count}) -gt {silent} ] && echo 1000_0 && exit 0\n"
        "echo 'slurm_load_jobs error: Socket timed out' >&2\nexit 1\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "PAUSE", 0.05)
    monkeypatch.setattr(slurm, "SILENCE", 60.0 if silent < 1000 else 0.3)
    if silent < 1000:
        assert slurm._in_queue(["1000_0"]) == {"1000_0"}
        return
    words = r"\(slurm_load_jobs error: Socket timed out\); jobs 1000_0, 1000_1 go on, and the same"
    with pytest.raises(UserError, match=words):
        slurm._in_queue(["1000_0", "1000_1"])


class Cluster:
    """A fake scheduler and the sweeps that are started on it."""

    def __init__(self, home: Path):
        self.home = home
        self.slurm = home / "slurm"
        self.env = {**os.environ, **fake_slurm.install(self.slurm)}

    def sweep(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, toy.__file__, "+exp=toy", f"items={ITEMS}", "pause=0.4"]
        return subprocess.Popen(
            [*command, "cluster=slurm", *QUICK, *arguments],
            env=self.env,
            cwd=self.home,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, job: str) -> None:
        subprocess.run([sys.executable, fake_slurm.__file__, what, job], env=self.env, check=True)

    def runs(self) -> list[Path]:
        found = (self.home / "runs" / "toy" / "sweep").glob("*offset=*")
        return sorted(path for path in found if path.is_dir())

    def begun(self, job: str) -> bool:
        """Whether the job's run has drawn some of its items."""
        runs = [r for r in self.runs() if (r / slurm.TICKET).exists()]
        of_job = [r for r in runs if json.loads((r / slurm.TICKET).read_text())["id"] == job]
        return any(len(list(run.glob("artifacts/.draw.partial/[1-9].json"))) for run in of_job)

    def events(self, *words: str) -> list[str]:
        return [event for event in fake_slurm.events(self.slurm) if event.split()[0] in words]


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def record(run: Path, name: str = "run.json") -> dict:
    return json.loads((run / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("blow", ["preempt", "term", "retake", "fail"])
def test_a_job_that_is_killed_and_requeued_goes_on_where_it_was(cluster, blow):
    sweep = cluster.sweep("offset=1,2")
    wait_for(lambda: cluster.begun("1000_0"), sweep)
    cluster.do(blow, "1000_0")
    _, err = sweep.communicate(timeout=180)
    assert sweep.returncode == 0, err
    assert "2 runs in " in err and ": 2 done\n" in err
    assert cluster.events("sbatch", "requeued") == ["sbatch 1000", "requeued 1000_0"]
    # What the scheduler has taken away waits for its end, so that nobody takes it for a failure.
    assert len(cluster.events("killed")) == (blow == "retake")
    hit, other = cluster.runs()
    assert [record(run, "status.json")["state"] for run in (hit, other)] == ["done", "done"]
    assert [record(run)["attempts"] for run in (hit, other)] == [2, 1]
    log = (hit / "job.log").read_text()
    assert log.count("[draw] starts") == 1 and log.count("[draw] resumes") == 1
    # The scheduler's warning lets the run end by itself; the end of a node does not.
    assert ("interrupted, nothing is lost" in log) == (blow != "fail")
    sums = [record(run, "summary.json")["toy.sum"] for run in (hit, other)]
    assert sums[1] - sums[0] == pytest.approx(1.0)  # the same draws, another offset
    assert not (hit / slurm.TICKET).exists()


@pytest.mark.slow
def test_jobs_outlive_the_launching_process_and_are_not_submitted_again(cluster):
    first = cluster.sweep("offset=1,2", "pause=3")  # longer than it takes to come back
    wait_for(lambda: cluster.begun("1000_0"), first)
    first.terminate()  # as Ctrl-C does, which jobs in the background do not hear
    _, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "jobs 1000_0, 1000_1 go on without this process" in err
    again = cluster.sweep("offset=1,2,3", "pause=3")
    _, err = again.communicate(timeout=180)
    assert again.returncode == 0, err
    assert "2 runs are in the queue already: jobs 1000_" in err and ": 3 done\n" in err
    assert cluster.events("sbatch") == ["sbatch 1000", "sbatch 1001"]
    assert [record(run)["attempts"] for run in cluster.runs()] == [1, 1, 1]


@pytest.mark.slow
def test_a_job_that_is_cancelled_or_fails_is_told_and_the_rest_go_on(cluster):
    sweep = cluster.sweep("offset=1,2", "fail='',user")
    wait_for(lambda: cluster.begun("1000_0"), sweep)
    cluster.do("scancel", "1000_0")
    _, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 1, err
    assert "4 runs in " in err and "1 done, 3 failed" in err
    assert "job 1000_0 has left the queue without a result: it was cancelled" in err
    assert err.count("offset is not to my taste") == 4  # when it happens, and in the end
    states = [record(run, "status.json")["state"] for run in cluster.runs()]
    assert sorted(states) == ["done", "failed", "failed", "failed"]


@pytest.mark.slow
def test_the_local_executor_needs_no_scheduler(tmp_path):
    command = [sys.executable, toy.__file__, "+exp=toy", "items=2", "offset=1,2", "fail='',user"]
    command += ["cluster=slurm", "hydra.launcher.scheduler=local", "hydra.launcher.gpus=0", *QUICK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "2 done, 2 failed" in done.stderr
    assert done.stderr.count("offset is not to my taste") == 4
