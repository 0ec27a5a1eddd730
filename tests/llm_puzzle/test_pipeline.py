"""Puzzle from a parent's directory to a report, resumed, changed, killed and misused."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import adaptive
from adaptive.core import InfeasibleError, UserError
from adaptive.core.run import Result, RunDir, run_stages
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.parent import load_parent

SETTINGS = [
    "data.length=24",
    "data.tokens=1500",
    "data.validation_tokens=300",
    "data.batch_size=32",
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

# What those who compare runs read.
KEYS = [
    "parent.loss",
    "child.loss.bld",
    "child.loss.gkd",
    "child.kl.bld",
    "child.kl.gkd",
    "child.ppl",
    "child.top5",
    "child.top10",
    "child.ppl.1-15",
    "child.ppl.32-63",
    "parent.ppl",
    "parent.ppl.32-63",
    "gkd.kept",
    "baseline.uniform.loss",
    "baseline.greedy.loss",
    "baseline.random.loss",
    "parent.params",
    "child.params",
    "latency.parent",
    "latency.child.predicted",
    "latency.child.measured",
    "speedup.predicted",
    "speedup.measured",
    "search.gap",
    "search.seconds",
    "library.variants",
    "bld.tokens_per_second",
    "bld.mfu",
    "scoring.replacements",
    "scoring.speedup_vs_full_forward",
]

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("puzzle")


@pytest.fixture(scope="module")
def finished(parent_dir, folder) -> Result:
    return experiment(parent_dir, folder).run(folder / "run")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run, to run on with other settings."""
    return Path(shutil.copytree(finished.dir, tmp_path / "run"))


def kept(text: str) -> set[str]:
    return {line[1:].partition("]")[0] for line in text.splitlines() if "done before" in line}


def test_the_summary_is_complete_and_sane(finished, parent):
    summary = finished.summary
    assert set(KEYS) <= set(summary)
    assert summary == json.loads((finished.dir / "summary.json").read_text())
    assert summary["parent.params"] == sum(w.numel() for w in parent.model.parameters())
    assert summary["child.params"] < summary["parent.params"]
    assert summary["library.variants"] == 3 * 4
    assert summary["library.loss"] <= summary["library.loss_ridge"] < summary["library.loss_paper"]
    assert 3 < summary["parent.loss"] < 4.2  # ln 62 = 4.13, and it is its own text
    assert summary["parent.loss"] < summary["child.loss.bld"]
    assert 0 < summary["child.kl.gkd"] < summary["child.kl.bld"]
    assert summary["speedup.predicted"] >= 1.5 and summary["speedup.measured"] > 1.0
    assert 0 < summary["latency.child.predicted"] < summary["latency.parent"] * 1.5
    assert 0 <= summary["search.gap"] <= 1e-4 and summary["search.seconds"] > 0
    assert summary["memory.error"] == pytest.approx(0, abs=1e-6)
    assert summary["scores.not_finite"] == 0


@pytest.mark.slow
def test_a_parent_that_does_not_fit_gives_the_same_child(parent_dir, tmp_path):
    """A few of its layers at a time, and activations on disk: the same numbers to the last bit."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog, and so on. " * 60)
    large = ["parent_layers=0", "activations=disk"]
    found = {}
    for name, more in {"plain": [], "streamed": large}.items():
        settings = [f"data.calibration={text}", "baselines=[]", *more]
        result = experiment(parent_dir, tmp_path, *settings).run(tmp_path / name)
        assert result.summary["bld.tokens_per_second"] > 0 and 0 < result.summary["bld.mfu"] < 1
        # Rows that the first run added to the table of times change its fits by a hair.
        times = ("costs.", "latency.", "speedup.", "scoring.")
        assert result.summary["library.activations"] == ("disk" if more else "device")
        times += ("library.activations",)
        found[name] = {k: v for k, v in summary_of(result).items() if not k.startswith(times)}
        assert not list(result.dir.rglob("activations-*"))
    assert found["plain"] == found["streamed"]
    with pytest.raises(UserError, match=r"^data\.calibration=self needs the whole parent on the"):
        experiment(parent_dir, tmp_path, *large).run(tmp_path / "self")


def test_baselines_are_there_or_say_why_not(finished):
    for name in ("uniform", "greedy", "random"):
        loss = finished.summary[f"baseline.{name}.loss"]
        if loss is None:
            assert "meets the budget" in finished.summary[f"baseline.{name}.reason"]
        else:
            assert finished.summary["parent.loss"] < loss < 6
            assert finished.summary[f"baseline.{name}.kl"] > 0


@torch.no_grad()
def test_the_child_is_what_the_summary_says(finished):
    directory = finished.dir / "artifacts" / "child" / "model"
    ours = load_parent(str(directory), torch.device("cpu"), torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.randint(3, 60, (2, 9))
    torch.testing.assert_close(ours.model(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    assert sum(w.numel() for w in theirs.parameters()) == finished.summary["child.params"]
    assert ours.tokenizer is not None
    chosen = json.loads((finished.dir / "artifacts/search/architectures.json").read_text())
    assert ours.model.config.blocks == chosen["child"]


def test_the_report_is_one_page(finished):
    page = finished.report.read_text(encoding="utf-8")
    for words in (
        *("Frontier", "Predicted and measured", "Block library", "Global distillation"),
        *("Loss by position", "rows of distillation, 24 tokens"),
    ):
        assert words in page
    assert "http://" not in re.sub(r"http://www\.w3\.org[^\"']*", "", page)


def test_every_step_is_in_the_metrics_once(finished):
    lines = (finished.dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for name in ("child", "baseline_random"):
        steps = [r["step"] for r in records if r["stage"] == name]
        assert steps == list(range(len(steps))) and len(steps) > 1
    variants = [(r["layer"], r["side"], r["option"]) for r in records if r["stage"] == "library"]
    assert len(variants) == len(set(variants)) == 12


def test_a_second_run_keeps_everything(parent_dir, folder, finished, capsys):
    before = (finished.dir / "summary.json").read_text()
    again = experiment(parent_dir, folder).run(finished.dir)
    assert kept(capsys.readouterr().err) == set(STAGES)
    assert again.summary == finished.summary
    assert (finished.dir / "summary.json").read_text() == before


# --- rounds, solutions, additivity ---


def read(result: Result, *path: str) -> Any:
    return json.loads(result.dir.joinpath("artifacts", *path).read_text())


def test_one_round_predicts_and_measures_the_childs_divergence(finished):
    summary, scores = finished.summary, read(finished, "scores", "scores.json")
    chosen = read(finished, "search", "search.json")["allocation"]["labels"]
    total = 0.0
    for layer, label in zip(scores, chosen, strict=True):
        attention, ffn = label.split("+")
        total += layer["kl"][layer["attention"].index(attention)][layer["ffn"].index(ffn)]
    assert summary["additivity.predicted_kl"] == pytest.approx(total)
    assert summary["additivity.measured_kl"] == summary["rounds.1.kl"] > 0
    assert summary["rounds"] == 1 and "additivity.pairs.count" not in summary
    assert summary["search.solutions"] == summary["search.kept"] == 1
    assert summary["scores.repaired"] >= 0 and summary["scores.repair_max"] >= 0
    if summary["scores.repaired"] == 0:
        assert summary["child.kl.predicted"] == pytest.approx(total)


@pytest.fixture(scope="module")
def iterated(parent_dir, folder, finished) -> Result:
    """Three rounds, three solutions and all pairs, from the library of the finished run."""
    run = Path(shutil.copytree(finished.dir, folder / "iterated"))
    settings = ("search.rounds=3", "search.n_solutions=3", "search.interactions=9")
    overrides = (*settings, "baselines=[greedy,marginal,max_params]", "search.diversity=0.7")
    return experiment(parent_dir, folder, *overrides).run(run)


def test_rounds_go_part_of_the_way_and_start_where_the_last_one_ended(iterated):
    summary = iterated.summary
    assert summary["rounds"] == 3
    speedups = [summary[f"rounds.{i}.speedup.predicted"] for i in (1, 2)]
    for index, speedup in enumerate([*speedups, summary["speedup.predicted"]], 1):
        assert speedup >= 1.5 ** (index / 3) * (1 - 1e-9)
    assert summary["rounds.3.kl"] == summary["additivity.measured_kl"] > 0
    for index in (1, 2):
        child = read(iterated, f"scores_{index}", "child.json")
        step = read(iterated, f"search_{index}", "step.json")
        assert child["blocks"] == step["blocks"]
        assert child["kl"] == summary[f"rounds.{index}.kl"] > 0
        assert step["kl.predicted"] == summary[f"rounds.{index}.kl.predicted"]
    # The base of the last search is the divergence of the last partial child.
    assert read(iterated, "search", "search.json")["base"] == summary["rounds.2.kl"]


def test_of_several_solutions_the_nearest_to_the_parent_is_kept(iterated):
    found = read(iterated, "search", "solutions.json")
    rows, summary = found["solutions"], iterated.summary
    assert 1 < len(rows) == summary["search.solutions"] <= 3
    assert summary["search.kept"] == found["kept"] + 1
    candidates = [row for row in rows if row["met"]] or rows
    assert rows[found["kept"]]["kl"] == min(row["kl"] for row in candidates)
    assert all(row["shared"] <= 0.7 * 3 for row in rows[1:])
    chosen = read(iterated, "search", "search.json")
    assert chosen["allocation"]["choice"] == chosen["choices"]["child"]
    kept_loss = chosen["base"] + chosen["allocation"]["loss"]
    assert rows[found["kept"]]["loss.predicted"] == kept_loss == summary["child.score.predicted"]
    assert summary["child.kl.bld"] == pytest.approx(rows[found["kept"]]["kl"], rel=0.2)


def test_pairs_and_further_baselines_are_in_the_summary_and_on_the_page(iterated):
    summary, page = iterated.summary, iterated.report.read_text(encoding="utf-8")
    pairs = read(iterated, "additivity", "additivity.json")["pairs"]
    assert len(pairs) == summary["additivity.pairs.count"] > 0
    ratios = [pair["measured"] / pair["predicted"] for pair in pairs]
    assert summary["additivity.pairs.mean_ratio"] == pytest.approx(sum(ratios) / len(ratios))
    for name in ("marginal", "max_params"):
        assert f"baseline.{name}.loss" in summary
    for section in ("Rounds", "Solutions", "Additivity"):
        assert f">{section}</h2>" in page


def test_interrupted_rounds_go_on_where_they_were(parent_dir, folder, iterated, tmp_path, capsys):
    run = Path(shutil.copytree(iterated.dir, tmp_path / "run"))
    shutil.rmtree(run / "artifacts" / "scores_2")
    settings = ("search.rounds=3", "search.n_solutions=3", "search.interactions=2")
    overrides = (*settings, "baselines=[greedy,marginal,max_params]", "search.diversity=0.7")
    result = experiment(parent_dir, folder, *overrides).run(run)
    again = kept(capsys.readouterr().err)
    assert {"search_1", "scores_1", "search_2", "search", "child"} <= again
    assert not {"scores_2", "additivity", "report"} & again  # and fewer pairs are measured
    assert result.summary["rounds.3.kl"] == iterated.summary["rounds.3.kl"]
    assert result.summary["additivity.pairs.count"] <= 2


@pytest.mark.slow
def test_bits_are_options_of_the_same_problem(parent_dir, folder, copied):
    """Half the memory at full speed: only fewer bits can do that."""
    overrides = ("space.bits=[16,8,4]", "budget.latency=null", "budget.memory=45%")
    result = experiment(parent_dir, folder, *overrides, "score.granularity=subblock").run(copied)
    blocks = read(result, "search", "architectures.json")["child"]
    assert any("bits" in half for block in blocks for half in block.values())
    summary = result.summary
    assert summary["memory.child.predicted"] <= 0.45 * summary["memory.parent.predicted"]
    assert summary["memory.error"] is None
    assert summary["library.variants"] == 3 * 4  # rounded, not distilled
    stored = json.loads((result.dir / "artifacts/child/model/config.json").read_text())
    assert stored["blocks"] == blocks
    assert "run without quantisation" in result.report.read_text(encoding="utf-8")


# --- a run goes on with other settings ---

CHANGES = {
    "gkd.learning_rate=2e-3": {
        *("calibration", "contexts", "library", "scores", "costs", "search", "additivity"),
    },
    "baselines=[greedy]": {"calibration", "contexts", "library", "scores", "costs"},
    "workload.prompt=12": {"calibration", "contexts", "library", "scores"},
    "space.attention_no_op=false": {"calibration", "contexts"},
    "score.metric=cosine": {"calibration", "contexts", "library", "costs"},
    "evaluate.positions=0": {
        *("calibration", "library", "scores", "costs", "search", "additivity"),
    },
    "gkd.long.tokens=100": {
        *("calibration", "library", "scores", "costs", "search", "additivity"),
    },
}


QUICK = {"baselines=[greedy]", "score.metric=cosine"}  # the others train or score anew


@pytest.mark.parametrize(
    "change", [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in CHANGES]
)
def test_a_change_runs_what_depends_on_it(parent_dir, folder, finished, copied, capsys, change):
    result = experiment(parent_dir, folder, change).run(copied)
    assert kept(capsys.readouterr().err) == CHANGES[change]
    assert result.summary["speedup.predicted"] >= 1.49
    if change.startswith("gkd.long"):
        assert result.summary["data.long.length"] == 64  # the parent's positions end there
        assert result.summary["gkd.tokens"] > finished.summary["gkd.tokens"] + 50
    if change.startswith("baselines"):
        assert "baseline.random.loss" not in result.summary


@pytest.mark.slow
def test_a_distillation_that_harms_is_undone(parent_dir, folder, copied, capsys):
    change = ("gkd.learning_rate=0.3", "baselines=[]")
    result = experiment(parent_dir, folder, *change).run(copied)
    assert result.summary["gkd.kept"] == "start"
    assert result.summary["child.kl.gkd"] == result.summary["child.kl.bld"]
    assert "the child from before is kept" in capsys.readouterr().err
    assert "what it was before is kept" in result.report.read_text(encoding="utf-8")
    child = load_parent(str(copied / "artifacts/child/model"), torch.device("cpu"), torch.float32)
    rows = Rows.load(copied / "artifacts" / "calibration" / "validation.safetensors")
    teacher = load_parent(str(parent_dir), torch.device("cpu"), torch.float32).model
    found = evaluate(child.model, rows, 1000, teacher)
    assert found.kl == pytest.approx(result.summary["child.kl.bld"], rel=1e-4)
    # Told to, it ships what training made.
    other = experiment(parent_dir, folder, *change, "gkd.keep_better=false").run(copied)
    assert other.summary["gkd.kept"] == "end"
    assert other.summary["child.kl.gkd"] > other.summary["child.kl.bld"]


@pytest.mark.slow
def test_the_users_table_of_times_may_go(parent_dir, folder, copied, tmp_path):
    """A run has its own copy of the times that it was made with."""
    other = f"cost.table={folder / 'table.csv'}"
    for stage in ("search", "verify"):
        shutil.rmtree(copied / "artifacts" / stage)
    saved = (folder / "table.csv").read_bytes()
    (folder / "table.csv").unlink()
    try:
        result = experiment(parent_dir, folder, other).run(copied)
    finally:
        (folder / "table.csv").write_bytes(saved)
    assert measured_rows(copied) > 0 and result.summary["speedup.predicted"] >= 1.49


def test_a_roofline_stands_in_for_a_device(parent_dir, folder, copied):
    result = experiment(parent_dir, folder, "cost.model=roofline", "cost.hardware=h100-sxm").run(
        copied
    )
    assert result.summary["latency.is_bound"] is True
    assert result.summary["latency.child.predicted"] < result.summary["latency.parent"]


# --- mistakes ---

BEFORE_ANYTHING = {
    "budget.latency=30parsec": "budget.latency",
    "budget.latency=null": "budget is empty",
    "search.solver=simplex": "search.solver: unknown solver 'simplex'",
    "search.frontier=[]": "search.frontier is empty",
    "data.length=1": "data.length=1 must be at least 2",
    "data.temperature=0": "data.temperature=0.0 must be above 0",
    "distill.init=random": "distill.init='random' is unknown, choose one of paper, ridge",
    "score.metric=mmlu": "score.metric='mmlu' is unknown",
    "baselines=[magic]": "baselines='magic' is unknown",
    "search.rounds=0": "search.rounds=0 must be at least 1",
    "search.n_solutions=0": "search.n_solutions=0 must be at least 1",
    "search.interactions=-1": "search.interactions=-1 must not be negative",
    "search.diversity=1.2": "search.diversity=1.2 must lie in 0 to 1",
    "dtype=float8": "dtype='float8' is unknown",
    "workload.batch=0": "workload.batch=0 must be at least 1",
    "gkd.micro_batch=0": "gkd.micro_batch=0 must be at least 1",
    "gkd.kl=-1": "gkd.kl=-1.0 must not be negative",
    "gkd.long.length=64": "gkd.long.length=64 must not be below data.length=128",
    "evaluate.batch_tokens=0": "evaluate.batch_tokens=0 must be at least 1",
    "evaluate.lm_eval_limit=0": "evaluate.lm_eval_limit=0 must be at least 1",
}


@pytest.mark.parametrize("override", BEFORE_ANYTHING)
def test_a_mistake_in_the_settings_is_told_before_anything_runs(override):
    with pytest.raises(UserError, match=re.escape(BEFORE_ANYTHING[override])):
        adaptive.load("puzzle_tiny", override)


def lose_weights(parent: Path) -> str:
    (parent / "model.safetensors").unlink()
    return "lacks model.safetensors"


def corrupt_weights(parent: Path) -> str:
    path = parent / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    return "is not a readable safetensors file"


def bad_space(parent: Path) -> str:
    return "space.kv_heads: 3 does not divide the parent's 4 KV heads"


def empty_text(parent: Path) -> str:
    (parent / "text.txt").write_text("  \n")
    return "text.txt is empty"


def other_encoding(parent: Path) -> str:
    (parent / "text.txt").write_bytes(b"na\xefve text")
    return "text.txt is not UTF-8 (byte 2)"


def too_little_text(parent: Path) -> str:
    (parent / "text.txt").write_text("Once upon a time.")
    return "too few to hold out data.validation_tokens=300"


MISTAKES = {
    lose_weights: (),
    corrupt_weights: (),
    bad_space: ("space.kv_heads=[3]",),
    empty_text: ("data.calibration={}/text.txt",),
    other_encoding: ("data.calibration={}/text.txt",),
    too_little_text: ("data.calibration={}/text.txt",),
}


@pytest.mark.parametrize("make", MISTAKES, ids=lambda make: make.__name__)
def test_bad_input_is_one_sentence_and_leaves_no_artefact(parent_dir, tmp_path, make):
    parent = Path(shutil.copytree(parent_dir, tmp_path / "parent"))
    message = make(parent)
    overrides = [override.format(parent) for override in MISTAKES[make]]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        experiment(parent, tmp_path, *overrides).run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    made = {path.name for path in (tmp_path / "run" / "artifacts").iterdir()}
    assert {name for name in made if not name.startswith(".")} <= {"costs"}
    assert not (tmp_path / "run" / "summary.json").exists()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed" and message in status["error"]


def test_a_budget_out_of_reach_names_the_smallest_that_is_not(parent_dir, folder, copied, capsys):
    with pytest.raises(InfeasibleError, match=r"budget\.latency=1000x") as caught:
        experiment(parent_dir, folder, "budget.latency=1000x").run(copied)
    assert kept(capsys.readouterr().err) == {
        *("calibration", "contexts", "library", "scores", "costs")
    }
    # What it says can be had can be had.
    within = f"budget.latency={1.01 * caught.value.reachable:.9f}"
    result = experiment(parent_dir, folder, within, "verify.tighten=0").run(copied)
    assert result.summary["latency.child.predicted"] <= 1.01 * caught.value.reachable + 1e-9


def test_a_full_disk_leaves_no_half_variant(parent_dir, tmp_path, monkeypatch):
    from adaptive.llm_puzzle import library

    save, written = library.save_file, []

    def full(tensors, path, **more):
        written.append(path)
        if len(written) == 3:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path, **more)

    monkeypatch.setattr(library, "save_file", full)
    with pytest.raises(UserError, match="(?i)disk|space"):
        experiment(parent_dir, tmp_path).run(tmp_path / "run")
    files = [p.name for p in (tmp_path / "run").rglob("*.safetensors") if "layer" in str(p)]
    assert len(files) == 2


# --- killed ---

KILLED = """
import os, signal, sys, threading
from adaptive.core.run.directory import RunDir

stage, delay = sys.argv.pop(1), float(sys.argv.pop(1))
status = RunDir.status

def watched(self, state, at=None, *rest, **more):
    status(self, state, at, *rest, **more)
    if at == stage:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

RunDir.status = watched
from adaptive.run import main
main()
"""


def start(parent_dir: Path, folder: Path, run: Path, stage: str, delay: float) -> int:
    """The command line in a process that SIGKILL ends ``delay`` seconds into a stage.

    It has as many threads as this one: sums over threads round differently.
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLED, stage, str(delay), "+exp=puzzle_tiny"]
        + [f"parent={parent_dir}", f"cost.table={folder / 'table.csv'}", *SETTINGS]
        + [f"hydra.run.dir={run}"],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_summary(
    parent_dir, folder, finished, tmp_path
):
    """One run, killed by SIGKILL in each stage in turn; times come from the table."""
    reference = experiment(parent_dir, folder).run(tmp_path / "reference")
    assert measured_rows(reference.dir) == 0
    run = tmp_path / "run"
    for i, stage in enumerate(STAGES):
        assert start(parent_dir, folder, run, stage, 0.03 * (i % 3)) == -signal.SIGKILL
        assert not (run / "summary.json").exists()
    assert start(parent_dir, folder, run, "none", 0.0) == 0
    assert summary_of(Result.read(run)) == summary_of(reference)
    for name in ("child", "baseline_random"):
        stored = [
            (root / "artifacts" / name / "model" / "model.safetensors").read_bytes()
            for root in (run, tmp_path / "reference")
            if (root / "artifacts" / name / "model").is_dir()
        ]
        assert len(set(stored)) <= 1
    test_every_step_is_in_the_metrics_once(Result.read(run))
    assert not list(run.rglob(".tmp-*")) and not list((run / "artifacts").glob(".*"))


# --- the recipe on real data ---


@pytest.mark.slow
@pytest.mark.data
def test_stories_parent_reads_stories_as_well_as_published(data_dir, tmp_path, monkeypatch):
    """1.304 nats a token, story by story, BOS first, at most 512 tokens, on the first 300."""
    monkeypatch.setenv("ADAPTIVE_DATA", str(data_dir))
    loaded = adaptive.load("puzzle_stories", "data.tokens=2000")
    [calibration] = [stage for stage in loaded.stages() if stage.name == "calibration"]
    summary = run_stages([calibration], RunDir(tmp_path), device="cpu")
    assert summary["parent.loss"] == pytest.approx(1.304, abs=0.02)
