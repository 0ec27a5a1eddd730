"""A SLURM of one machine, for tests: ``sbatch``, ``srun``, ``squeue``, ``scontrol``, ``scancel``.

:func:`install` puts the commands into a folder for PATH. A job of an array is a process group of
its own, which a "node" process starts and starts again when the job was requeued. Signals go to all
processes of a job but its batch shell, as SLURM's do. The folder ``$FAKE_SLURM`` holds the state:
``queue/ID`` for every job that waits or runs, ``log`` with a line for every event.

``fake_slurm.py preempt ID`` does what a scheduler with a grace time does: SIGCONT and SIGTERM, then
the signal that the job asked for, then SIGKILL; the job goes back to the queue if it asked so.
``fake_slurm.py term ID`` is one that sends no signal but SIGTERM, and kills for good what has not
asked to be requeued by itself; ``retake ID`` one that has put the job back before it says so.
``fake_slurm.py fail ID`` is the end of a node: SIGKILL, and back to the queue by ``--requeue``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
GRACE = 20.0  # seconds between the warning and SIGKILL
KILL_WAIT = 4.0  # the same where the scheduler takes the job away without a warning


def install(folder: Path, commands: tuple[str, ...] = COMMANDS) -> dict[str, str]:
    """Environment variables with which ``commands`` are those of this file."""
    (folder / "bin").mkdir(parents=True)
    (folder / "queue").mkdir()
    for command in commands:
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {command} "$@"\n')
        script.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "FAKE_SLURM": str(folder)}


def events(folder: Path) -> list[str]:
    """What has happened, one ``WORD ID`` each."""
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def home() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def note(word: str, job: str) -> None:
    with (home() / "log").open("a") as log:
        log.write(f"{word} {job}\n")


def sbatch(script: str) -> None:
    text = Path(script).read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    assert "requeue" in flags and flags["signal"].startswith("USR2@"), flags
    array = re.match(r"0-(\d+)", flags.get("array", ""))
    number = str(1000 + len([e for e in events(home()) if e.startswith("sbatch")]))
    note("sbatch", number)
    jobs = [f"{number}_{i}" for i in range(int(array[1]) + 1)] if array else [number]
    for job in jobs:
        (home() / "queue" / job).write_text("")
        command = [sys.executable, __file__, "node", script, job]
        with open(os.devnull, "w") as nowhere:
            subprocess.Popen(command, start_new_session=True, stdout=nowhere, stderr=nowhere)
    print(f"Submitted batch job {number}")


def node(script: str, job: str) -> None:
    """Runs a job, again and again while it is requeued."""
    kept = home() / "queue" / job
    number, _, task = job.partition("_")
    env = {**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    if task:
        env |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}
    while True:
        note("start", job)
        shell = subprocess.Popen(["bash", script], env=env, start_new_session=True)
        kept.write_text(str(shell.pid))
        shell.wait()
        if not kept.exists() or "requeue" not in kept.read_text():
            break
        note("requeued", job)
    kept.unlink(missing_ok=True)
    note("end", job)


def srun(*arguments: str) -> None:
    first = next(i for i, a in enumerate(arguments) if a == sys.executable)
    flags = dict(zip(arguments[:first], arguments[1:first], strict=False))
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        job += "_" + os.environ["SLURM_ARRAY_TASK_ID"]
    for flag, stream in (("--output", 1), ("--error", 2)):
        path = flags[flag].replace("%A_%a", job).replace("%j", job).replace("%t", "0")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.execv(arguments[first], arguments[first:])


def squeue(*arguments: str) -> None:
    if "--format=%T" in arguments:
        (job,) = (a.removeprefix("--jobs=") for a in arguments if a.startswith("--jobs="))
        kept = home() / "queue" / job
        going = not kept.exists() or "requeue" in kept.read_text()
        print("COMPLETING" if going else "RUNNING")
        return
    assert "--array" in arguments and "--format=%i" in arguments, arguments
    for job in sorted((home() / "queue").iterdir()):
        print(job.name)


def scontrol(what: str, job: str) -> None:
    assert what == "requeue", what
    kept = home() / "queue" / job
    kept.write_text(kept.read_text() + " requeue")


def scancel(*jobs: str) -> None:
    for job in jobs:
        kept = home() / "queue" / job
        shell = int(kept.read_text().split()[0])
        kept.unlink()
        os.killpg(shell, signal.SIGKILL)


def preempt(job: str) -> None:
    shell = int((home() / "queue" / job).read_text().split()[0])
    note("preempt", job)
    tell(shell, signal.SIGCONT, signal.SIGTERM)
    time.sleep(0.3)
    tell(shell, signal.SIGUSR2)
    kill_late(shell, job, GRACE)


def term(job: str) -> None:
    shell = int((home() / "queue" / job).read_text().split()[0])
    note("term", job)
    tell(shell, signal.SIGCONT, signal.SIGTERM)
    kill_late(shell, job, GRACE)


def retake(job: str) -> None:
    shell = int((home() / "queue" / job).read_text().split()[0])
    scontrol("requeue", job)
    tell(shell, signal.SIGCONT, signal.SIGTERM)
    kill_late(shell, job, KILL_WAIT)


def kill_late(shell: int, job: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and steps(shell):
        time.sleep(0.05)
    if steps(shell):
        note("killed", job)
        tell(shell, signal.SIGKILL)


def fail(job: str) -> None:
    shell = int((home() / "queue" / job).read_text().split()[0])
    note("fail", job)
    scontrol("requeue", job)
    tell(shell, signal.SIGKILL)


def steps(shell: int) -> list[int]:
    """The processes of a job, its batch shell aside."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == shell and fields[0] != "Z" and int(stat.parent.name) != shell:
            found.append(int(stat.parent.name))
    return found


def tell(shell: int, *signals: signal.Signals) -> None:
    for number in signals:
        for process in steps(shell):
            os.kill(process, number)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
