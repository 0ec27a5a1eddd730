"""What each part of Puzzle is worth: one parent, one thing changed at a time.

    python experiments/puzzle_ablations.py run --recipe puzzle_small --dir runs/ablations
    python experiments/puzzle_ablations.py join ONE.json OTHER.json
    python experiments/puzzle_ablations.py measure --recipe puzzle_small
    python experiments/puzzle_ablations.py page

``run`` goes through the cells below and adds each to ``experiments/results/puzzle_ablations.json``
as soon as it is done; started again, it goes on with those that are missing (``--studies`` picks,
``--seconds`` stops in time, trailing overrides go to every run). Cells that share a library are
runs in one directory, so it is made once, and cells of one configuration are one run. Seeds share
nothing, so several processes can share a GPU, each with ``--seeds`` and an ``--out`` of its own;
``join`` makes their files one. As what runs side by side cannot be timed, children keep to the
budget by the costs of their blocks, and ``measure`` times those of two studies afterwards, one
by one beside the parent. ``page`` writes ``experiments/puzzle_ablations.md`` from the results:
tables, and for each direction that the paper reports whether it holds here.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

# Installed as a part of adaptive, which the type checker does not know.
import adaptive  # noqa: E402
from adaptive.core import InfeasibleError, UserError  # noqa: E402
from adaptive.core.run import (  # noqa: E402
    Experiment,
    RunDir,
    atomic_write_json,
    atomic_write_text,
    environment,
    resolve_device,
    run_stages,
)
from adaptive.core.run.share import take_stages  # noqa: E402
from adaptive.experiments.records import (  # noqa: E402 # pyrefly: ignore[missing-import]
    commit_of,
    read,
    started,
)

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "puzzle_ablations.json", HERE / "puzzle_ablations.md"
SEEDS = (0, 1, 2)
SPEEDS = ("1.3x", "1.75x", "2.5x")
MIDDLE, FAST = SPEEDS[1], SPEEDS[2]
ALLOCATORS = ("uniform", "greedy", "marginal", "max_params", "random")
NO_BASELINES = "baselines=[]"
NO_CHECK = "search.tighten=0"  # of latency, beside other runs on the device
LEFT_OUT = ("verify", "export", "report")  # stages that say nothing of quality
MEASURED = "allocation"  # the study of allocators
TIMED = (MEASURED, "rounds")  # studies whose children are timed


@dataclass(frozen=True)
class Cell:
    """A run of the recipe.

    Attributes:
        study: which table it stands in.
        name: its row.
        speed: the budget.
        seed: of calibration, training and random architectures.
        overrides: what it changes.
        library: names the directory; cells that train another library have another.
    """

    study: str
    name: str
    speed: str
    seed: int
    overrides: tuple[str, ...] = ()
    library: str = "default"

    @property
    def key(self) -> str:
        return f"{self.study}/{self.name}/{self.speed}/{self.seed}"

    def arguments(self) -> list[str]:
        """Overrides of the recipe, the budget and the seed among them."""
        own = [f"budget.latency={self.speed}", f"seed={self.seed}", NO_CHECK]
        if not any(override.startswith("baselines=") for override in self.overrides):
            own.append(NO_BASELINES)
        return [*own, *self.overrides]


def cells(tokens: int) -> Iterator[Cell]:
    """All cells; those of one directory in a row.

    Args:
        tokens: of the recipe's local distillation, of which parts are tried.
    """
    for seed in SEEDS:
        for speed in SPEEDS:
            yield Cell("allocation", "all", speed, seed, (f"baselines=[{','.join(ALLOCATORS)}]",))
        for name, overrides in GKD.items():
            yield Cell("gkd", name, MIDDLE, seed, overrides)
        for metric in ("kl", "lm_loss", "cosine"):
            yield Cell("scores", metric, MIDDLE, seed, (f"score.metric={metric}",))
        for state in ("true", "false"):
            yield Cell("isotonic", state, FAST, seed, (f"search.isotonic={state}",))
        for name, overrides in ROUNDS.items():
            yield Cell("rounds", name, FAST, seed, overrides)
        coupled = f"distill.coupled_tokens={tokens}"
        yield Cell("coupling", "decoupled", MIDDLE, seed)
        yield Cell("coupling", "coupled", MIDDLE, seed, (coupled,))
        for part in (0.0, 0.25, 0.5, 1.0):
            for init in ("paper", "ridge"):
                changed = (f"distill.tokens={round(part * tokens)}", f"distill.init={init}")
                library = "default" if part == 1 and init == "ridge" else f"{init}-{part:g}"
                yield Cell("distillation", f"{init} {part:g}", MIDDLE, seed, changed, library)
        no_op = ("space.kv_heads=[]", "space.ffn_fractions=[]", "space.attention_linear=false")
        yield Cell("space", "all", MIDDLE, seed)
        no_op = (*no_op, "space.ffn_linear=false")
        yield Cell("space", "no-op only", MIDDLE, seed, no_op, "no-op")


GKD = {
    "cosine + KL": (),
    "none": ("gkd.tokens=0",),
    "KL": ("gkd.cosine=0",),
    "cosine": ("gkd.kl=0",),
    "LM": ("gkd.cosine=0", "gkd.kl=0", "gkd.lm=1"),
    "cosine + KL + LM": ("gkd.lm=1",),
    "MSE + KL": ("gkd.cosine=0", "gkd.mse=1"),
}
ROUNDS = {
    "1": ("search.rounds=1",),
    "3, not healed": ("search.rounds=3", "search.heal=0"),
    "3": ("search.rounds=3",),
    "3, from the library": ("search.rounds=3", "search.carry=false"),
}
STUDIES = ("allocation", "distillation", "scores", "isotonic", "rounds", "coupling", "gkd", "space")


# --- running ---


def run(arguments: argparse.Namespace) -> None:
    """Runs what is missing, and writes after each cell."""
    begun = time.perf_counter()
    common = list(arguments.overrides)
    config: Any = adaptive.load(arguments.recipe, *common).config
    command = "python experiments/puzzle_ablations.py run --recipe"
    command = " ".join([command, arguments.recipe, *common])
    record = started(arguments.out, command, config.device, arguments.commit, "cells")
    about = environment(device=config.device)
    runs: dict[str, str] = {}  # key of the first cell of each configuration
    for cell in cells(config.distill.tokens):
        if cell.study not in arguments.studies or cell.seed not in arguments.seeds:
            continue
        if cell.key in record["cells"]:
            continue
        if arguments.seconds and time.perf_counter() - begun > arguments.seconds:
            sys.exit(f"stopped after {arguments.seconds:g} s, before {cell.key}: run it again")
        experiment = adaptive.load(arguments.recipe, *common, *cell.arguments())
        twin = runs.setdefault(repr(experiment.config), cell.key)
        if twin != cell.key:
            record["cells"][cell.key] = {**record["cells"][twin], "same_run_as": twin}
            atomic_write_json(arguments.out, record)
            continue
        directory = Path(arguments.dir) / f"{cell.library}-{cell.seed}"
        launched = time.perf_counter()
        blocks: dict[str, Any] = {}
        try:
            summary = run_quietly(experiment, directory)
            if cell.study in TIMED:
                found = directory / "artifacts" / "search" / "architectures.json"
                blocks = {"architectures": json.loads(found.read_text())}
        except InfeasibleError as error:
            # A budget out of a space's reach is a result; anything else stops the script.
            summary = {"error": str(error)}
        seconds = time.perf_counter() - launched
        record["cells"][cell.key] = {
            "overrides": cell.arguments(),
            "date": datetime.date.today().isoformat(),
            "commit": commit_of(about, arguments.commit),
            "seconds": round(seconds, 1),
            "summary": {key: value for key, value in summary.items() if _kept(key)},
            **blocks,
        }
        atomic_write_json(arguments.out, record)
        print(f"=== {cell.key}: {seconds:.0f} s", flush=True)


def run_quietly(experiment: Experiment, directory: Path) -> dict[str, Any]:
    """The summary of a run, without the stages that only deploy and show its child.

    What its neighbours in the same place have done already, calibration above all, it takes over.
    """
    config = experiment.config
    stages = [stage for stage in experiment.stages() if stage.name not in LEFT_OUT]
    neighbours = sorted(directory.parent.glob("*"))
    take_stages(stages, directory, neighbours, seed=config.seed, device=config.device)
    run = RunDir(directory)
    with run.opened(config, experiment.command, experiment.overrides):
        return run_stages(stages, run, seed=config.seed, device=config.device)


def measure(arguments: argparse.Namespace) -> None:
    """Times the children that are to be timed and are not yet, each beside its parent."""
    from adaptive.core import Workload
    from adaptive.llm_puzzle.blocks import BlockOption
    from adaptive.llm_puzzle.latency import make_clock
    from adaptive.llm_puzzle.parent import parent_config, parent_directory
    from adaptive.llm_puzzle.realise import child_config
    from adaptive.llm_puzzle.shapes import DTYPES
    from adaptive.llm_puzzle.verify import measure_pair

    config: Any = adaptive.load(arguments.recipe, *arguments.overrides).config
    command = read(arguments.out)["command"]
    record = started(arguments.out, command, config.device, arguments.commit, "cells")
    about = environment(device=config.device)
    parent = parent_config(parent_directory(config.parent))
    workload = Workload(config.workload.batch, config.workload.prompt, config.workload.output)
    clock = make_clock(config.cost, resolve_device(config.device))
    known: dict[str, float] = {}  # several allocators may choose the same child
    begun = time.perf_counter()
    for key, name, blocks in untimed(record):
        cell = record["cells"][key]
        mark = json.dumps(blocks)
        if mark not in known:
            if arguments.within and time.perf_counter() - begun > arguments.within:
                sys.exit(f"stopped after {arguments.within:g} s, before {name} of {key}")
            child = child_config(parent, [BlockOption.from_config(b) for b in blocks])
            found = measure_pair(
                parent, child, workload, DTYPES[config.dtype], clock, arguments.seconds
            )
            known[mark] = found.speedup
        cell.setdefault("measured", {})[name] = known[mark]
        cell["timed"] = {
            "date": datetime.date.today().isoformat(),
            "commit": commit_of(about, arguments.commit),
        }
        print(f"{key} {name}: {known[mark]:.3f}x", flush=True)
        atomic_write_json(arguments.out, record)


def untimed(record: dict[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Key of the cell, allocator and blocks of children that no one timed; the MIP's come first."""
    for name in ("child", *ALLOCATORS):
        for key, cell in record["cells"].items():
            blocks = cell.get("architectures", {}).get(name)
            if blocks and name not in cell.get("measured", {}):
                yield key, name, blocks


KEPT = ("child.", "baseline.", "parent.", "speedup.", "library.loss", "additivity.", "error")


def _kept(key: str) -> bool:
    return key.startswith(KEPT) or key in ("scores.repaired", "rounds", "search.status")


def join(paths: Sequence[Path]) -> dict[str, Any]:
    """The cells of several records of one command on one device.

    Raises:
        UserError: they are of different commands or devices, or have a cell in common.
    """
    first, *others = map(read, paths)
    for path, other in zip(paths[1:], others, strict=True):
        for what, one, its in (
            ("command", first["command"], other["command"]),
            ("device", *(r["environment"].get("device") for r in (first, other))),
        ):
            if one != its:
                raise UserError(f"{path}: its {what} is {its}, that of {paths[0]} is {one}")
        if both := first["cells"].keys() & other["cells"].keys():
            raise UserError(f"{path}: {min(both)} is in another file too: give each cell once")
        first["cells"] |= other["cells"]
    return first


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    verbs = parser.add_subparsers(dest="what", required=True)
    running = verbs.add_parser("run", help="run the cells that are missing")
    running.add_argument("--recipe", default="puzzle_small")
    running.add_argument("--dir", default="runs/ablations", help="of the runs")
    running.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    running.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    running.add_argument("--seconds", type=float, default=0.0, help="start no cell after these")
    running.add_argument("--commit", help="what is measured, where there is no git")
    running.add_argument("--out", type=Path, default=RESULTS)
    running.add_argument("overrides", nargs="*", help="of every run")
    measuring = verbs.add_parser("measure", help="time the children, alone on the device")
    measuring.add_argument("--recipe", default="puzzle_small")
    measuring.add_argument("--commit", help="what is measured, where there is no git")
    measuring.add_argument("--out", type=Path, default=RESULTS, help="results, which get the times")
    measuring.add_argument("--seconds", type=float, default=3.0, help="for each child")
    measuring.add_argument("--within", type=float, default=0.0, help="begin no child after these")
    measuring.add_argument("overrides", nargs="*", help="as of run")
    joining = verbs.add_parser("join", help="make several files of results one")
    joining.add_argument("files", nargs="+", type=Path)
    joining.add_argument("--out", type=Path, default=RESULTS)
    writing = verbs.add_parser("page", help="write the page from the results")
    writing.add_argument("--results", type=Path, default=RESULTS)
    writing.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args(argv)
    try:
        if arguments.what in ("run", "measure"):
            {"run": run, "measure": measure}[arguments.what](arguments)
            return
        if arguments.what == "join":
            atomic_write_json(arguments.out, join(arguments.files))
            print(arguments.out)
            return
        record = read(arguments.results)
    except UserError as error:
        sys.exit(f"error: {error}")
    # Not before the cells are known, whose names it takes.
    from adaptive.experiments.puzzle_ablations_page import (  # pyrefly: ignore[missing-import]
        page,
    )

    atomic_write_text(arguments.out, page(record, arguments.results.name))
    print(arguments.out)


if __name__ == "__main__":
    main()
