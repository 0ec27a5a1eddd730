"""Whole runs that fuse FFNs: what is trained, verified and exported, and what resumes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_puzzle import SHAPE
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import adaptive
from adaptive.core import UserError
from adaptive.core.cost import MeasuredTable
from adaptive.core.run import Result
from adaptive.llm_puzzle import deploy, fusion_stage
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    BlockOption,
)
from adaptive.llm_puzzle.fusion import NORM, fused_blocks, runs
from adaptive.llm_puzzle.parent import parent_config
from adaptive.llm_puzzle.realise import child_config
from adaptive.llm_puzzle.shapes import stack

SETTINGS = [
    "data.length=24",
    "data.tokens=1500",
    "data.validation_tokens=300",
    "distill.tokens=0",
    "score.tokens=200",
    "workload.batch=4",
    "workload.prompt=32",
    "cost.seconds=1",
    "verify.seconds=0.6",
    "search.tighten=0",
    "gkd.tokens=0",
    "search.frontier=[0.8]",
    "search.fuse_ffn=true",
    "search.fuse_limit=100",
    # Without attention in most layers: nothing else can make it this small.
    "space.kv_heads=[]",
    "space.attention_linear=false",
    "space.ffn_linear=false",
    "space.ffn_no_op=false",
    "space.ffn_fractions=[]",
    "budget.latency=null",
    "baselines=[random]",
]


@pytest.fixture(scope="module")
def deep_dir(tmp_path_factory, tokenizer) -> Path:
    """A parent of five layers, whose FFNs are narrow beside what a call costs by itself."""
    directory = tmp_path_factory.mktemp("models") / "deep"
    torch.manual_seed(0)
    shape = {**SHAPE, "num_hidden_layers": 5, "initializer_range": 0.1}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def least_params(deep_dir: Path) -> int:
    """Parameters of the child whose first layer alone attends, its FFNs whole."""
    config = parent_config(deep_dir)
    own = [BlockOption.from_config(entry) for entry in config.blocks]
    child = [own[0], *(BlockOption(NO_ATTENTION, block.ffn) for block in own[1:])]
    return stack(child_config(config, child)).params()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fusion")


def experiment(deep_dir: Path, folder: Path, *overrides: str) -> adaptive.load:
    budget = f"budget.params={least_params(deep_dir)}"
    table = f"cost.table={folder / 'table.csv'}"
    return adaptive.load("puzzle_tiny", f"parent={deep_dir}", table, *SETTINGS, budget, *overrides)


@pytest.fixture(scope="module")
def finished(deep_dir, folder) -> Result:
    return experiment(deep_dir, folder).run(folder / "run")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished.dir, tmp_path / "run"))


def read(result: Result, *path: str) -> Any:
    return json.loads(result.dir.joinpath("artifacts", *path).read_text())


def kept_stages(text: str) -> set[str]:
    return {line[1:].partition("]")[0] for line in text.splitlines() if "done before" in line}


@torch.no_grad()
def test_the_fused_child_is_what_is_trained_verified_and_exported(finished):
    summary, found = finished.summary, read(finished, "fusion", "fusion.json")
    before = [
        BlockOption.from_config(b) for b in read(finished, "search", "architectures.json")["child"]
    ]
    assert found["runs"] == runs(before) != []
    assert summary["fusion.runs"] == len(found["runs"])
    assert summary["fusion.layers"] == sum(map(len, found["runs"])) >= 3  # only one layer attends
    assert summary["fusion.kept"] is True and summary["fusion.latency.kind"] == "measured"
    assert 0 < summary["fusion.latency.after"] < summary["fusion.latency.before"]
    assert summary["fusion.kl.before"] > 0 and summary["fusion.kl.after"] > 0
    assert summary["fusion.kl.after"] != summary["fusion.kl.before"]

    directory = finished.dir / "artifacts" / "child" / "model"
    stored = json.loads((directory / "config.json").read_text())
    assert stored["blocks"] == found["blocks"] == [b.to_config() for b in fused_blocks(before)]
    exported = AutoModelForCausalLM.from_pretrained(finished.dir / "artifacts" / "export" / "hf")
    assert exported.config.blocks == found["blocks"]
    assert exported(torch.randint(3, 60, (2, 9))).logits.isfinite().all()
    params = sum(w.numel() for w in exported.parameters())
    assert params == summary["child.params"] == found["cost"]["params"]
    # Nothing was trained, so these are the merged weights.
    for run in found["runs"]:
        width = found["blocks"][run[0]]["ffn"]["intermediate_size"]
        file = f"layer_{run[0]:03d}/ffn-ffn{width}.safetensors"
        state = load_file(finished.dir / "artifacts" / "fusion" / file)
        assert torch.equal(state[NORM], torch.ones(32))
        for name, weight in state.items():
            assert torch.equal(exported.get_parameter(f"model.layers.{run[0]}.{name}"), weight)

    # The promise that is checked is the fused child's.
    assert summary["latency.child.predicted"] == found["cost"]["latency"]
    predicted = read(finished, "search", "search.json")["allocation"]["cost"]
    assert found["cost"]["memory"] < predicted["memory"]
    assert summary["memory.error"] == pytest.approx(0, abs=1e-6)
    promised = summary["speedup.predicted"]
    assert summary["latency.error"] == pytest.approx(summary["speedup.measured"] / promised - 1)
    page = finished.report.read_text(encoding="utf-8")
    assert ">FFN fusion</h2>" in page and "The fused child is kept." in page


def test_a_finished_run_is_kept_and_an_interrupted_one_goes_on(deep_dir, folder, copied, capsys):
    before = json.loads((copied / "summary.json").read_text())
    again = experiment(deep_dir, folder).run(copied)
    assert again.summary == before
    stages = [stage.name for stage in experiment(deep_dir, folder).stages()]
    assert kept_stages(capsys.readouterr().err) == set(stages)
    order = ["search", "fusion", "child"]
    assert sorted(order, key=stages.index) == order
    shutil.rmtree(copied / "artifacts" / "fusion")
    result = experiment(deep_dir, folder).run(copied)
    kept = kept_stages(capsys.readouterr().err)
    assert {"library", "scores", "search", "additivity"} <= kept and "fusion" not in kept
    assert result.summary["fusion.kl.after"] == before["fusion.kl.after"]
    assert result.summary["child.params"] == before["child.params"]


def test_a_run_without_fusion_shares_everything_up_to_the_search(deep_dir, folder, copied, capsys):
    plain = experiment(deep_dir, folder, "search.fuse_ffn=false", "search.fuse_limit=0.1")
    assert "fusion" not in [stage.name for stage in plain.stages()]
    result = plain.run(copied)
    assert {"costs", "calibration", "library", "scores", "search"} <= kept_stages(
        capsys.readouterr().err
    )
    assert not any(name.startswith("fusion.") for name in result.summary)
    child = json.loads((result.dir / "artifacts/child/model/config.json").read_text())
    assert child["blocks"] == read(result, "search", "architectures.json")["child"]
    assert "FFN fusion" not in result.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_rise_of_kl_beyond_the_limit_leaves_the_child_as_found(deep_dir, folder, copied):
    found = read(Result.read(copied), "fusion", "fusion.json")
    rise = found["kl"]["after"] / found["kl"]["before"] - 1
    limit = rise / 2 if rise > 0 else 0.0
    result = experiment(deep_dir, folder, f"search.fuse_limit={limit}").run(copied)
    assert result.summary["fusion.kept"] is (rise <= limit)
    if rise > limit:
        child = json.loads((result.dir / "artifacts/child/model/config.json").read_text())
        assert child["blocks"] == read(result, "search", "architectures.json")["child"]
        predicted = read(result, "search", "search.json")["allocation"]["cost"]["latency"]
        assert result.summary["latency.child.predicted"] == predicted
        assert "above the unfused child" in result.report.read_text(encoding="utf-8")


def test_a_roofline_decides_where_nothing_can_be_measured(deep_dir, folder, copied):
    overrides = ("cost.model=roofline", "cost.hardware=h100-sxm")
    result = experiment(deep_dir, folder, *overrides).run(copied)
    summary = result.summary
    assert summary["fusion.latency.kind"] == "bound" and summary["fusion.runs"] > 0
    cost = read(result, "fusion", "fusion.json")["cost"]
    assert summary["fusion.latency.after"] == cost["latency"]
    assert "lower bound of the latency" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", ["costs", "fusion"])
def test_a_table_of_another_device_may_not_reach_as_far(
    deep_dir, folder, copied, monkeypatch, stage
):
    """What a stage measured, as if it were shipped: that of costs has no FFN as wide."""
    table = MeasuredTable.load(copied / "artifacts" / stage / "latency.csv")
    monkeypatch.setattr(deploy, "latency_of_another_device", lambda *_: table)
    overrides = ("cost.model=shipped", "cost.hardware=h100-sxm")
    result = experiment(deep_dir, folder, *overrides).run(copied)
    found = read(result, "fusion", "fusion.json")
    assert found["latency.kind"] == "predicted" and found["runs"]
    assert result.summary["fusion.kl.after"] > 0
    if stage == "costs":
        assert not found["kept"] and "no eager fp32 time of ffn" in found["reason"]
        assert result.summary["fusion.latency.after"] is None
    else:
        assert found["kept"] and found["reason"] is None
        assert 0 < found["latency"]["after"] < found["latency"]["before"]
        assert found["latency"]["after"] == found["cost"]["latency"]
    page = result.report.read_text(encoding="utf-8")
    assert "predicted latency" in page
    assert found["reason"] is None or found["reason"].partition(":")[0] in page


@pytest.mark.slow
def test_merged_ffns_are_priced_without_the_drift_since_the_others(
    deep_dir, folder, copied, tmp_path, monkeypatch
):
    """A machine that takes twice as long by now: 10 s would have been 5 s."""
    profile_space = fusion_stage.profile_space

    def drifted(model, space, workloads, dtype, table, *rest, **more):
        before = {row.key for row in table}
        profile_space(model, space, workloads, dtype, table, *rest, **more)
        costs = MeasuredTable.load(copied / "artifacts" / "costs" / "latency.csv")
        for row in table:
            if row.key not in before:
                seconds = 2 * costs[row.key].seconds if row.key in costs else 10.0
                table.add(replace(row, seconds=seconds))

    monkeypatch.setattr(fusion_stage, "profile_space", drifted)
    other = f"cost.table={tmp_path / 'table.csv'}"
    result = experiment(deep_dir, folder, other).run(copied)
    costs, both = (
        MeasuredTable.load(copied / "artifacts" / stage / "latency.csv")
        for stage in ("costs", "fusion")
    )
    merged = [row for row in both if row.key not in costs]
    assert result.summary["fusion.runs"] > 0 and merged
    assert all(row.seconds == pytest.approx(5.0) for row in merged)
    assert all(both[row.key] == row for row in costs)


def test_a_child_without_runs_stays_as_it_is(deep_dir, folder, copied):
    overrides = ("budget.params=100%", "space.attention_no_op=false")
    result = experiment(deep_dir, folder, *overrides).run(copied)
    assert result.summary["fusion.runs"] == result.summary["fusion.layers"] == 0
    assert result.summary["fusion.kept"] is False
    assert result.summary["fusion.kl.after"] is None
    assert "no FFNs follow each other" in result.report.read_text(encoding="utf-8")


MISTAKES = {
    ("search.fuse_limit=-0.1",): r"search\.fuse_limit=-0\.1 must not be negative",
    ("plan_only=true",): r"search\.fuse_ffn=true merges weights",
    ("library=nvlabs", "library.path=x"): r"search\.fuse_ffn=true merges weights",
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_mistakes_are_told_before_anything_runs(overrides):
    with pytest.raises(UserError, match=MISTAKES[overrides]):
        adaptive.load("puzzle_tiny", "search.fuse_ffn=true", *overrides)
