"""Puzzle from a parent's directory to a report, resumed and changed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from puzzle_runs import STAGES, experiment, measured_rows, steps_are_whole, summary_of
from transformers import AutoModelForCausalLM

from adaptive.core import InfeasibleError, UserError
from adaptive.core.run import MetricsLog, Result
from adaptive.llm_puzzle import report, rounds
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import evaluate
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.settings import SearchConfig

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
    steps_are_whole(finished)


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


ROUNDS = ("search.rounds=3", "gkd.tokens=3600")  # ten steps and more: healing takes whole ones


@pytest.fixture(scope="module")
def iterated(parent_dir, folder, finished) -> Result:
    """Three rounds, three solutions and all pairs, from the library of the finished run."""
    run = Path(shutil.copytree(finished.dir, folder / "iterated"))
    settings = (*ROUNDS, "search.n_solutions=3", "search.interactions=9")
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
        # Distilled on its part of the tokens, and on that of the child before it.
        healed = read(iterated, f"scores_{index}", "healed.json")
        assert child["tokens"] == healed["tokens"] == pytest.approx(0.15 * index * 3600, rel=0.3)
        assert not (iterated.dir / "artifacts" / f"scores_{index}" / "gkd.checkpoint").exists()
    # All children see as many tokens, up to a step.
    baseline = read(iterated, "baseline_max_params", "quality.json")["gkd.tokens"]
    assert summary["child.gkd.tokens"] == pytest.approx(baseline, abs=16 * 24)
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
    assert "The child goes on from partial children" in page


def test_interrupted_rounds_go_on_where_they_were(parent_dir, folder, iterated, tmp_path, capsys):
    run = Path(shutil.copytree(iterated.dir, tmp_path / "run"))
    shutil.rmtree(run / "artifacts" / "scores_2")
    settings = (*ROUNDS, "search.n_solutions=3", "search.interactions=2")
    overrides = (*settings, "baselines=[greedy,marginal,max_params]", "search.diversity=0.7")
    result = experiment(parent_dir, folder, *overrides).run(run)
    again = kept(capsys.readouterr().err)
    assert {"search_1", "scores_1", "search_2", "search", "child"} <= again
    assert not {"scores_2", "additivity", "report"} & again  # and fewer pairs are measured
    assert result.summary["rounds.3.kl"] == iterated.summary["rounds.3.kl"]
    assert result.summary["additivity.pairs.count"] <= 2


def test_a_child_that_is_distilled_is_not_distilled_again(
    parent_dir, folder, finished, tmp_path, monkeypatch
):
    """Scores around it were cut short."""
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    asked = experiment(parent_dir, folder, *ROUNDS, "search.rounds=2", "baselines=[]")
    score_library = rounds.score_library

    def cut_short(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "score_library", cut_short)
    with pytest.raises(KeyboardInterrupt):
        asked.run(run)
    monkeypatch.setattr(rounds, "score_library", score_library)
    monkeypatch.setattr(rounds, "distil", cut_short)
    # As if it had been cut short before the state of its training was removed.
    left = run / "artifacts" / ".scores_1.partial" / "gkd.checkpoint"
    left.mkdir()
    assert asked.run(run).summary["rounds.1.kl"] > 0
    assert not (run / "artifacts" / "scores_1" / "gkd.checkpoint").exists()


@pytest.mark.slow
def test_rounds_without_healing_take_the_library_as_it_is(parent_dir, folder, finished, tmp_path):
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    settings = ("search.rounds=2", "search.heal=0", "baselines=[]")
    result = experiment(parent_dir, folder, *settings).run(run)
    assert not (run / "artifacts" / "scores_1" / "healed").exists()
    assert read(result, "scores_1", "child.json")["tokens"] == 0


@pytest.mark.slow
def test_a_last_child_of_the_library_sees_all_tokens(parent_dir, folder, finished, tmp_path):
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    settings = (*ROUNDS, "search.rounds=2", "search.carry=false", "baselines=[max_params]")
    result = experiment(parent_dir, folder, *settings).run(run)
    baseline = read(result, "baseline_max_params", "quality.json")["gkd.tokens"]
    assert result.summary["child.gkd.tokens"] == baseline
    assert result.summary["child.kl.bld"] > result.summary["rounds.1.kl"]  # which was distilled
    assert "goes on from partial children" not in result.report.read_text(encoding="utf-8")


def test_the_childs_curve_begins_with_those_of_partial_children(iterated):
    """Which is what its weights have seen."""
    ctx = SimpleNamespace(run=SimpleNamespace(metrics=MetricsLog(iterated.dir / "metrics.jsonl")))
    config = SimpleNamespace(search=SearchConfig(rounds=3))
    curve = [record["tokens"] for record in report._of_the_child(ctx, config)]
    assert curve == sorted(curve) and len(curve) > 8
    assert curve[-1] == iterated.summary["child.gkd.tokens"]
    own = list(report._of_the_child(ctx, SimpleNamespace(search=SearchConfig(rounds=1))))
    assert 0 < len(own) < len(curve)


def test_a_baseline_of_the_childs_blocks_has_not_its_weights(parent_dir, finished, tmp_path):
    """Partial children were distilled for the child alone."""
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    settings = (*ROUNDS, "search.rounds=2", "baselines=[marginal]", "cost.model=roofline")
    settings += ("cost.hardware=h100-sxm", "budget.latency=99%", "gkd.keep_better=false")
    result = experiment(parent_dir, tmp_path, *settings).run(run)
    chosen = read(result, "search", "architectures.json")
    assert chosen["child"] == chosen["marginal"]
    child, baseline = (
        read(result, name, "quality.json") for name in ("child", "baseline_marginal")
    )
    assert child["kl.bld"] != baseline["kl.bld"] and child["kl.gkd"] != baseline["kl.gkd"]


def test_healing_that_diverges_is_told_as_such(parent_dir, folder, finished, tmp_path):
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    wild = (*ROUNDS, "search.rounds=2", "gkd.learning_rate=1e12")
    with pytest.raises(UserError, match=r"^\[scores_1\] global distillation diverged: lower"):
        experiment(parent_dir, folder, *wild).run(run)


def test_too_few_steps_for_all_children_are_refused(parent_dir, folder, finished, tmp_path):
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    few = ("search.rounds=3", "gkd.tokens=600")
    with pytest.raises(
        UserError, match=r"^gkd.tokens=600 are 2 steps of 16 documents, too few for 2"
    ):
        experiment(parent_dir, folder, *few).run(run)


def test_interactions_are_of_the_parent_whatever_was_healed(iterated):
    scores = read(iterated, "scores", "scores.json")
    chosen = read(iterated, "search", "architectures.json")["child"]
    pairs = read(iterated, "additivity", "additivity.json")["pairs"]
    assert pairs
    for pair in pairs:
        alone = sum(_score(scores[layer], chosen[layer]) for layer in pair["layers"])
        assert pair["predicted"] == pytest.approx(alone, rel=1e-3, abs=1e-5)


def _score(layer: dict[str, Any], block: dict[str, Any]) -> float:
    """KL of a block in the parent, as the first scores have it."""
    found = BlockOption.from_config(block)
    row = layer["attention"].index(found.attention.label)
    return layer["kl"][row][layer["ffn"].index(found.ffn.label)]


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


def test_a_budget_out_of_reach_names_the_smallest_that_is_not(parent_dir, folder, copied, capsys):
    with pytest.raises(InfeasibleError, match=r"budget\.latency=1000x") as caught:
        experiment(parent_dir, folder, "budget.latency=1000x").run(copied)
    assert kept(capsys.readouterr().err) == {
        *("calibration", "contexts", "library", "scores", "costs")
    }
    # What it says can be had can be had.
    within = f"budget.latency={1.01 * caught.value.reachable:.9f}"
    result = experiment(parent_dir, folder, within, "search.tighten=0").run(copied)
    assert result.summary["latency.child.predicted"] <= 1.01 * caught.value.reachable + 1e-9
    # A promise that the search has not checked is no bound.
    assert "lower bound" not in result.report.read_text(encoding="utf-8")
