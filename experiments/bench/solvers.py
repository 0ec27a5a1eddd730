"""How fast and how good the solvers are on block libraries of Puzzle's size.

    python experiments/bench/solvers.py            # about 4 minutes on 2 cores, most of it CBC
    python experiments/bench/solvers.py --quick    # one instance a size, CBC for 5 s at most
    python experiments/bench/solvers.py --out experiments/results/solvers.json    # for the README

Expected on 2 cores: 80x54x2 and 80x54x4 certified at gap 1e-4 in about 0.05 s (asked: 1 s and 3 s),
162x72x3 at 1e-3 in about 0.1 s (asked: 5 s), a frontier of 50 budgets in about 1 s (asked: 10 s),
the Lagrangian's bound within 0.01 % of the optimum at 80x54 (asked: 0.1 %). The paper's solver, CBC
through python-mip, takes 20 to 50 times as long with two limits and hundreds of times with four;
with three or four it does not always finish in 20 s.

Times are whole calls from arrays to answer, model building included, on both sides. An instance is
a library with equal costs in all layers, as a real one has (see adaptive/core/testing.py), under
several limits at once.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core import Budget, ChoiceProblem, frontier, solve
from adaptive.core.run import atomic_write_json, environment
from adaptive.core.testing import FFN_WIDTHS, block_library

SHARES = {"latency": 0.65, "memory": 0.60, "params": 0.70, "flops": 0.75}
MORE_WIDTHS = tuple(sorted({*FFN_WIDTHS, 0.62, 0.37, 0.05}, reverse=True))


@dataclass(frozen=True)
class Size:
    """Layers x options x limits, with the gap and the seconds that are asked for."""

    layers: int
    limits: int
    gap: float
    seconds: float
    widths: tuple[float, ...] = FFN_WIDTHS

    def problem(self, seed: int) -> tuple[ChoiceProblem, Budget]:
        problem = block_library(self.layers, self.limits, ffn_widths=self.widths, seed=seed)
        return problem, Budget({name: f"{100 * SHARES[name]:g}%" for name in problem.cost})

    def __str__(self) -> str:
        return f"{self.layers}x{6 * (len(self.widths) + 2)}x{self.limits}"


SIZES = (
    Size(80, 2, 1e-4, 1.0),
    Size(80, 4, 1e-4, 3.0),
    Size(162, 3, 1e-3, 5.0, MORE_WIDTHS),
)


def cbc(size: Size, seed: int, limit: float) -> tuple[float, float]:
    """Seconds and loss (inf if none was found) of CBC through python-mip, as the paper used it.

    Runs in a process of its own: OR-tools and python-mip bring two versions of the same libraries.
    """
    mip: Any = importlib.import_module("mip")
    problem, budget = size.problem(seed)
    begin = time.perf_counter()
    model = mip.Model(sense=mip.MINIMIZE, solver_name=mip.CBC)
    model.verbose = 0
    model.max_mip_gap = size.gap
    x = [
        [model.add_var(var_type=mip.BINARY, obj=float(loss)) for loss in row]
        for row in problem.loss
    ]
    for row in x:
        model += mip.xsum(row) == 1
    for name, limits in budget.resolve(problem).items():
        assert limits.max is not None
        terms = zip(problem.cost[name].ravel().tolist(), (v for row in x for v in row), strict=True)
        # Divided by the limit: CBC, too, likes numbers around 1.
        model += (
            mip.xsum(value / limits.max * v for value, v in terms)
            <= 1 - problem.fixed.get(name, 0.0) / limits.max
        )
    model.optimize(max_seconds=limit)
    found = model.num_solutions > 0
    return time.perf_counter() - begin, float(model.objective_value) if found else float("inf")


def bench_size(
    size: Size, seeds: Sequence[int], cbc_limit: float, pool: Executor
) -> dict[str, str]:
    """One row of the first table."""
    seconds, gaps, statuses, theirs, excess = [], [], [], [], []
    for seed in seeds:
        problem, budget = size.problem(seed)
        ours = solve(problem, budget, gap=size.gap)
        seconds.append(ours.seconds)
        gaps.append(ours.gap)
        statuses.append(ours.status)
        if cbc_limit:
            their_seconds, their_loss = pool.submit(cbc, size, seed, cbc_limit).result()
            theirs.append(their_seconds)
            excess.append(their_loss / ours.loss - 1)
    met = max(seconds) <= size.seconds and set(statuses) == {"optimal"}
    row = {
        "instance": str(size),
        "gap asked": f"{size.gap:g}",
        "gap worst": f"{max(gaps):.1e}",
        "solve() median": f"{statistics.median(seconds):.3f} s",
        "worst": f"{max(seconds):.3f} s",
        "asked": f"{size.seconds:g} s",
        "met": "yes" if met else "NO",
    }
    if theirs:
        ratio = statistics.median(t / s for t, s in zip(theirs, seconds, strict=True))
        stopped = sum(t >= cbc_limit for t in theirs)
        row |= {
            "CBC median": f"{statistics.median(theirs):.1f} s",
            "CBC out of time": f"{stopped} of {len(theirs)}",
            "CBC loss above ours": f"{100 * max(excess):+.3f} %",
            "CBC / solve()": f"{'>= ' if stopped else ''}{ratio:.0f}",
        }
    return row


def bench_lagrangian(seeds: Sequence[int]) -> list[dict[str, str]]:
    """Bound and answer of the NumPy solvers against the optimum."""
    rows = []
    for size in SIZES:
        found: dict[str, list[tuple[float, float, float]]] = {"lagrangian": [], "greedy": []}
        for seed in seeds:
            problem, budget = size.problem(seed)
            best = solve(problem, budget, gap=0)
            for name, entries in found.items():
                a = solve(problem, budget, solver=name)
                entries.append((a.seconds, 1 - a.bound / best.loss, a.loss / best.loss - 1))
        for name, entries in found.items():
            seconds, below, above = zip(*entries, strict=True)
            rows.append(
                {
                    "instance": str(size),
                    "solver": name,
                    "median": f"{1e3 * statistics.median(seconds):.0f} ms",
                    "bound below optimum, worst": f"{100 * max(below):.3f} %",
                    "loss above optimum, worst": f"{100 * max(above):.3f} %",
                }
            )
    return rows


def bench_frontier(points: int) -> dict[str, str]:
    """Many budgets, warm-started, on the first size."""
    problem, _ = SIZES[0].problem(0)
    budgets = [
        Budget({"latency": f"{30 + 70 * i / (points - 1):.4f}%", "memory": "60%"})
        for i in range(points)
    ]
    begin = time.perf_counter()
    found = frontier(problem, budgets, gap=SIZES[0].gap)
    seconds = time.perf_counter() - begin
    optimal = sum(row["status"] == "optimal" for row in found.table())
    gaps = [point.allocation.gap for point in found if point.allocation]
    return {
        "instance": str(SIZES[0]),
        "budgets": str(points),
        "certified": str(optimal),
        "gap worst": f"{max(gaps):.1e}",
        "seconds": f"{seconds:.2f} s",
        "asked": "10 s",
        "met": "yes" if seconds <= 10 and optimal == points else "NO",
    }


def print_table(title: str, rows: Sequence[dict[str, str]]) -> None:
    """Aligned columns, one line a row."""
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    print(f"\n{title}")
    for cells in (names, *(list(row.values()) for row in rows)):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def main(arguments: Sequence[str] | None = None) -> bool:
    """Runs the benchmark; returns whether everything asked for was met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="instances of each size")
    parser.add_argument("--cbc-limit", type=float, default=20.0, help="seconds; 0 leaves CBC out")
    parser.add_argument("--quick", action="store_true", help="one instance, CBC for 5 s at most")
    parser.add_argument("--out", type=Path, help="JSON file of all tables")
    options = parser.parse_args(arguments)
    seeds = range(1 if options.quick else options.seeds)
    limit = min(options.cbc_limit, 5.0) if options.quick else options.cbc_limit
    if limit and importlib.util.find_spec("mip") is None:
        print("CBC is left out: python-mip is not installed (pip install mip).")
        limit = 0.0
    # The first search imports OR-tools; that is no search time.
    importlib.import_module("ortools.math_opt.python.mathopt")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        sizes = [bench_size(size, seeds, limit, pool) for size in SIZES]
    print_table("Certified search: solve() with its default solver, mip", sizes)
    alone = bench_lagrangian(seeds)
    print_table("NumPy alone", alone)
    sweep = bench_frontier(50)
    print_table("Frontier", [sweep])
    if options.out is not None:
        about = environment(device="cpu")
        told = " ".join(sys.argv[1:] if arguments is None else arguments)
        record = {
            "command": f"python experiments/bench/solvers.py {told}".strip(),
            "date": datetime.date.today().isoformat(),
            "commit": (about.get("git") or {}).get("commit"),
            "environment": about,
            "cpus": os.cpu_count(),
            "instances": len(seeds),
            "cbc_limit": limit,
            "certified": sizes,
            "numpy": alone,
            "frontier": sweep,
        }
        atomic_write_json(options.out, record)
    return all(row["met"] == "yes" for row in (*sizes, sweep))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
