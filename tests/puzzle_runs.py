"""Small runs of the recipe ``puzzle_tiny``, on the tiny parent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adaptive
from adaptive.core.run import Result

SETTINGS = [
    "data.length=24",
    "data.tokens=1500",
    "data.validation_tokens=300",
    "data.batch=32",
    "distill.tokens=300",
    "score.tokens=200",
    "score.granularity=block",
    "workload.batch=2",
    "workload.prompt=16",
    "workload.output=4",
    "space.kv_heads=[1]",
    "space.ffn_fractions=[0.5]",
    "cost.seconds=0.5",
    "verify.seconds=0.1",
    "gkd.tokens=600",
    "evaluate.positions=4",
    "search.frontier=[0.8,0.5]",
]

STAGES = [stage.name for stage in adaptive.load("puzzle_tiny").stages()]

# Differ between runs of the same configuration: times, and what is computed from times alone.
TIMES = {
    "scoring.speedup_vs_full_forward",
    "bld.tokens_per_second",
    "bld.mfu",
    "search.seconds",
    "latency.parent",
    "latency.child.measured",
    "latency.error",
    "speedup.measured",
}


def measured_rows(run: Path) -> int:
    """Rows of the latency table that the run's own costs stage measured."""
    return json.loads((run / "artifacts" / "costs" / "costs.json").read_text())["measured"]


def experiment(parent_dir: Path, folder: Path, *overrides: str) -> adaptive.load:
    table = f"cost.table={folder / 'table.csv'}"
    return adaptive.load("puzzle_tiny", f"parent={parent_dir}", table, *SETTINGS, *overrides)


def summary_of(result: Result) -> dict[str, Any]:
    return {name: value for name, value in result.summary.items() if name not in TIMES}


def steps_are_whole(result: Result) -> None:
    """Every step that a run logged is there once."""
    lines = (result.dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for name in ("child", "baseline_random"):
        steps = [r["step"] for r in records if r["stage"] == name]
        assert steps == list(range(len(steps))) and len(steps) > 1
    variants = [(r["layer"], r["side"], r["option"]) for r in records if r["stage"] == "library"]
    assert len(variants) == len(set(variants)) == 12
