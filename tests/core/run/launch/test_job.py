from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adaptive.core.run.launch.job import LOG, Job, command


def job(tmp_path: Path, code: str) -> Job:
    return Job("run", (sys.executable, "-c", code), str(tmp_path))


def log(tmp_path: Path) -> str:
    return (tmp_path / "run" / LOG).read_text()


def test_a_job_is_its_command_with_a_log_and_an_exit_status(tmp_path):
    one = job(tmp_path, "import os; print(os.environ['GREETING'], os.getcwd()); exit(3)")
    assert one.run({"GREETING": "hello"}) == 3
    assert log(tmp_path).splitlines()[1] == f"hello {tmp_path}"
    assert one.run({"GREETING": "again"}) == 3
    assert log(tmp_path).count("=== attempt of 20") == 2 and "again" in log(tmp_path)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('error: no such device'); exit(1)", "no such device"),
        ("print('what now?'); exit(4)", "ended with exit status 4: what now?"),
        ("exit(4)", "ended with exit status 4"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL, as the system does when memory"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV; see run/job.log"),
    ],
)
def test_a_job_says_why_it_failed(tmp_path, code, why):
    job(tmp_path, "print('error: of an earlier attempt'); exit(1)").run()
    one = job(tmp_path, code)
    assert one.why(one.run()).startswith(why)


def test_the_status_of_the_run_says_why_where_nothing_else_does(tmp_path):
    one = job(tmp_path, "print('Traceback'); exit(1)")
    status = one.run()
    record = {"state": "failed", "stage": "add", "error": "ZeroDivisionError: one over nothing"}
    (tmp_path / "run" / "status.json").write_text(json.dumps(record))
    assert one.why(status) == "ZeroDivisionError: one over nothing"


def test_a_job_that_is_stopped_may_end_as_it_likes(tmp_path):
    """Also from the handler of a signal, which interrupts the very thread that waits for it."""
    code = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(130));"
        "print('ready', flush=True); time.sleep(60)"
    )
    one = job(tmp_path, code)

    def stop(*_) -> None:
        while not (tmp_path / "run" / LOG).exists() or "\nready" not in log(tmp_path):
            time.sleep(0.02)
        one.stop()

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert one.run() == 130
    finally:
        signal.signal(signal.SIGALRM, before)
    one.stop()  # again: nothing is left to stop


def test_a_job_travels_without_its_process(tmp_path):
    one = job(tmp_path, "exit(0)")
    one.run()
    assert pickle.loads(pickle.dumps(one)) == one


def test_several_processes_are_started_by_torchrun():
    plain = command(("-m", "adaptive.run"), ["+exp=x"], 1)
    assert plain == (sys.executable, "-m", "adaptive.run", "+exp=x")
    several = command(("-m", "adaptive.run"), ["+exp=x"], 4)
    assert several[1:3] == ("-m", "torch.distributed.run")
    assert "--nproc-per-node=4" in several and several[-3:] == plain[1:]


CHILD = """
import os, sys, time
from adaptive.core.run.launch.job import end_with_parent
end_with_parent()
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from adaptive.core.run.launch.job import Job
Job("run", (sys.executable, "-c", sys.argv[1]), ".").run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no such signal elsewhere")
def test_a_job_does_not_outlive_a_launcher_that_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], cwd=tmp_path)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        lines = log(tmp_path).splitlines() if (tmp_path / "run" / LOG).exists() else []
        if lines and lines[-1].isdigit():
            break
        time.sleep(0.05)
    child = int(lines[-1])
    assert alive(child)
    parent.kill()
    parent.wait()
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
