"""Many small ViTs on one device: the quadtree's priors and parts, and the baselines.

    python experiments/train_quadformers.py --dir runs/imagenette --seconds 540
    python experiments/train_quadformers.py --studies priors --seeds 0 -- train.epochs=150
    python experiments/train_quadformers.py --at-once 3

Each training is a run of the recipe ``quadformer_train`` in a directory of its own. As soon as one
is done its numbers are added to ``experiments/results/quadformer_trainings.json``. Stopped by
``--seconds`` or a signal, and started again, those that were cut short go on from their
checkpoints. Trailing overrides go to every training.

They take turns in this process, where a program that was compiled for one serves all others of its
shapes at once: seeds wait for no compiler. With ``--at-once`` above 1 each has a process of its
own, which pays where a training leaves the device idle; compiled programs are then kept beside the
runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
import adaptive  # noqa: E402
from adaptive.core import UserError  # noqa: E402
from adaptive.core.run import atomic_write_json  # noqa: E402
from adaptive.experiments.records import (  # noqa: E402 # pyrefly: ignore[missing-import]
    commit_of,
    started,
)

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "quadformer_trainings.json"
RECIPE = "quadformer_train"
POLL_SECONDS = 0.5
GRACE_SECONDS = 15  # for a run to write its status after it was told to stop


@dataclass(frozen=True)
class Training:
    """One run of the recipe.

    Attributes:
        study: which question it belongs to.
        name: what is trained.
        seed: of weights, order and augmentation.
        overrides: what it changes of the recipe.
    """

    study: str
    name: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.study}/{self.name}/{self.seed}"

    def directory(self, root: Path) -> Path:
        return root / self.study / f"{self.name}-{self.seed}"

    def arguments(self, common: list[str]) -> list[str]:
        """Overrides of the recipe; the training's own come last and win."""
        return [*common, *self.overrides, f"seed={self.seed}"]


STUDIES: dict[str, dict[str, tuple[str, ...]]] = {
    # what the goals are about, with all seeds
    "main": {
        "quadtree": (),
        "uniform": ("model.kind=uniform",),
        "centre": ("model.prior=centre",),
    },
    # always the full grid: as good as this ViT gets with all its tokens
    "full": {
        "vanilla": ("model.kind=uniform", "train.num_tokens=[]"),
    },
    "priors": {
        "random": ("model.prior=random",),
        "gain": ("model.prior=gain",),
        "feature": ("model.prior=0.5*centre + 0.5*feature",),
    },
    "baselines": {
        "tome": ("model.kind=tome",),
        "entropy": ("model.kind=entropy",),
    },
    "parts": {
        "area_attention": ("model.area_attention=true",),
        "detail": ("model.detail=true",),
        "scale_embedding": ("model.scale_embedding=true",),
        "distilled": ("train.distill.teacher=ema",),
    },
}
SEEDS = (0, 1, 2)


def trainings(studies: list[str], seeds: list[int]) -> Iterator[Training]:
    """All trainings, a seed at a time, so that what is cut short has whole comparisons."""
    for seed in seeds:
        for study in studies:
            for name, overrides in STUDIES[study].items():
                yield Training(study, name, seed, overrides)


def run(arguments: argparse.Namespace) -> int:
    """Trains what is missing; returns how many trainings are left."""
    begun, common = time.monotonic(), list(arguments.overrides)
    command = " ".join(["python experiments/train_quadformers.py --", *common])
    device = adaptive.load(RECIPE, *common).config.device
    record = started(arguments.out, command, device, arguments.commit, "trainings")
    waiting = [
        t for t in trainings(arguments.studies, arguments.seeds) if t.key not in record["trainings"]
    ]
    for training in waiting:  # mistakes are told before hours are spent
        adaptive.load(RECIPE, *training.arguments(common))

    def done(training: Training) -> None:
        record["trainings"][training.key] = result(training, common, arguments)
        atomic_write_json(arguments.out, record)
        print(f"=== {training.key} done", flush=True)

    if arguments.at_once == 1:
        return in_turn(waiting, arguments, done)
    running: dict[Training, subprocess.Popen[bytes]] = {}
    failed: list[str] = []
    try:
        while waiting or running:
            while waiting and len(running) < arguments.at_once:
                training = waiting.pop(0)
                running[training] = start(training, common, Path(arguments.dir))
            time.sleep(POLL_SECONDS)
            for training, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[training]
                if process.returncode:
                    failed.append(training.key)
                    print(f"=== {training.key} failed: see its log.txt", flush=True)
                    continue
                done(training)
            if arguments.seconds and time.monotonic() - begun > arguments.seconds:
                break
    finally:
        stop(list(running.values()))
    return len(waiting) + len(running) + len(failed)


def in_turn(
    waiting: list[Training], arguments: argparse.Namespace, done: Callable[[Training], None]
) -> int:
    """Trains one after the other in this process; returns how many are left."""
    import torch

    os.environ.update({**surroundings(Path(arguments.dir)), **os.environ})
    dynamo: Any = torch._dynamo.config  # pyrefly: ignore[implicit-import]
    # Programs of all models and budgets stand side by side; beyond the limit nothing is compiled.
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = 1024
    late, left = [], list(waiting)

    def stop(*_: Any) -> None:
        late.append(True)
        signal.raise_signal(signal.SIGTERM)  # which a training hears between two steps

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, arguments.seconds)
    try:
        for training in waiting:
            run = adaptive.load(RECIPE, *training.arguments(list(arguments.overrides)))
            try:
                run.run(training.directory(Path(arguments.dir)))
            except UserError as error:
                print(f"=== {training.key} failed: {error}", flush=True)
                continue
            left.remove(training)
            done(training)
    except KeyboardInterrupt:
        if not late:
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return len(left)


def surroundings(root: Path) -> dict[str, str]:
    """The environment of a process that trains: what it compiles is kept beside the runs, and its
    memory fits budgets that differ in what they allocate."""
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(root.resolve() / ".compiled"),
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


def start(training: Training, common: list[str], root: Path) -> subprocess.Popen[bytes]:
    """Starts, or resumes, a training; what it prints is added to ``log.txt``."""
    directory = training.directory(root)
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "adaptive.run", f"+exp={RECIPE}"]
    command += [*training.arguments(common), f"hydra.run.dir={directory}"]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # Compilers of several trainings share the cores.
    settings = {**surroundings(root), "TORCHINDUCTOR_COMPILE_THREADS": "4"}
    with open(directory / "log.txt", "ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**settings, **os.environ, "PYTHONPATH": path.rstrip(":")},
        )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Tells runs to stop and waits for them."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def result(training: Training, common: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """What a finished run says of itself."""
    directory = training.directory(Path(arguments.dir))
    about = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return {
        "overrides": training.arguments(common),
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(about, arguments.commit),
        "summary": json.loads((directory / "summary.json").read_text(encoding="utf-8")),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dir", default="runs/quadformers", help="of the runs")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--at-once", type=int, default=1, help="trainings that share the device")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop all after these")
    parser.add_argument("--commit", help="what is trained, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", help="of every training")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        left = run(arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted, nothing is lost: the same command goes on")
    if left:
        sys.exit(f"{left} trainings are not done: the same command goes on")


if __name__ == "__main__":
    main()
