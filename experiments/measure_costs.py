"""Measures, on one GPU, the tables that adaptive ships and how far off they are.

Usage: python experiments/measure_costs.py --out DIR [JOB ...]

Every job is a run in DIR/JOB, with a table of its own (DIR/JOB.csv); `--list` names them, and those
that verify measure their table first. One
process does them all, since imports and compilation take as long as a table. A job that fails is
named at the end and does not stop the others; started again, finished ones are kept.
`publish_costs.py` makes shipped tables and result files of the runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout without an install

import adaptive  # noqa: E402

DECODER = (
    "seconds=110",
    "workload.contexts=[128,512,1024,2048,4096,8192,16384,32768]",
    "workload.prompts=[128,512,2048,8192]",
    "workload.prefill_tokens=16384",
)
CHILDREN = (
    *DECODER,
    "children.outputs=[128,1024]",
    "children.seconds=0.4",
)
# Whole 49B and 70B layers, as tensor parallelism splits them, at the paper's scenarios.
SERVING = (
    "seconds=110",
    "variants.kv_heads=[8]",
    "variants.ffn_fractions=[1.0]",
    "variants.linear=false",
    "variants.tensor_parallel=[1,2,4]",
    "workload.batches=[1,64,256,512,1024]",
    "workload.contexts=[128,1152,4096]",
    "workload.prompts=[128,2048]",
    "workload.prefill_batches=[1,16]",
    "workload.prefill_tokens=2048",
)
JOBS: dict[str, tuple[str, ...]] = {
    "verify-llama-3-8b-bf16": (
        "verify_costs", "model=llama-3-8b", "dtype=bf16", *CHILDREN, "children.generations=6",
    ),
    "verify-llama-3-70b-fp8": (
        "verify_costs", "model=llama-3-70b", "dtype=fp8", *CHILDREN, "children.layers=40",
        "children.count=12", "children.generations=3",
    ),
    "verify-llama-3-70b-bf16": (
        "verify_costs", "model=llama-3-70b", "dtype=bf16", *CHILDREN, "children.layers=20",
        "children.count=12", "children.generations=3",
    ),
    "llama-3-8b-fp8": ("profile", "model=llama-3-8b", "dtype=fp8", *DECODER),
    "vit-small-bf16": ("profile", "model=vit-small", "dtype=bf16", "seconds=60"),
    "vit-base-bf16": ("profile", "model=vit-base", "dtype=bf16", "seconds=60"),
    "vit-large-bf16": ("profile", "model=vit-large", "dtype=bf16", "seconds=60"),
    "nemotron-super-49b-fp8": ("profile", "model=nemotron-super-49b", "dtype=fp8", *SERVING),
}  # fmt: skip


def measure(job: str, out: Path, device: str) -> None:
    """One job, in a folder of its name."""
    recipe, *overrides = JOBS[job]
    table = f"table={out / job}.csv"
    adaptive.load(recipe, f"device={device}", table, *overrides).run(out / job)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="default: all of them")
    parser.add_argument("--out", type=Path, help="directory of the runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--list", action="store_true", help="name the jobs and stop")
    arguments = parser.parse_args(argv)
    if arguments.list:
        print(*(f"{name}: {' '.join(job)}" for name, job in JOBS.items()), sep="\n")
        return
    if arguments.out is None:
        parser.error("--out is needed: a directory for the runs")
    if unknown := sorted(set(arguments.jobs) - set(JOBS)):
        parser.error(f"there is no job {unknown[0]}, choose from {', '.join(JOBS)}")
    failed = []
    for job in arguments.jobs or JOBS:
        begun = time.perf_counter()
        try:
            measure(job, arguments.out, arguments.device)
        except Exception as error:  # the other jobs are not to be lost
            failed.append(f"{job}: {error}")
        print(f"=== {job}: {time.perf_counter() - begun:.0f} s", flush=True)
    if failed:
        sys.exit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
