"""FFN fusion: which FFNs merge, that the merged one is their sum, and a run that keeps it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_puzzle import LINEAR, NO_OP, SHAPE, blocks_of, gqa, mlp
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import adaptive
from adaptive.core import UserError
from adaptive.core.cost import MeasuredTable
from adaptive.core.run import Result
from adaptive.llm_puzzle import deploy, fusion_stage
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    NO_FFN,
    AttentionOption,
    BlockOption,
    FFNOption,
)
from adaptive.llm_puzzle.fusion import NORM, fuse, fuse_weights, fused_blocks, runs
from adaptive.llm_puzzle.fusion_stage import reason_against
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer, PuzzleModelConfig
from adaptive.llm_puzzle.parent import parent_config
from adaptive.llm_puzzle.realise import child_config, realise_child
from adaptive.llm_puzzle.shapes import stack

HALF = {"kind": "mlp", "intermediate_size": 24, "bits": "fp8"}

# Layers, and the runs among them.
CASES: dict[str, tuple[list[tuple[dict, dict]], list[list[int]]]] = {
    "the first attends": ([(gqa(4), mlp(48)), (NO_OP, mlp(24)), (NO_OP, mlp(8))], [[0, 1, 2]]),
    "attention between": ([(gqa(4), mlp(48)), (gqa(4), mlp(24)), (NO_OP, mlp(8))], [[1, 2]]),
    "linear attention between": ([(NO_OP, mlp(8)), (LINEAR, mlp(8)), (gqa(4), mlp(8))], []),
    "an empty layer": ([(gqa(4), mlp(48)), (NO_OP, NO_OP), (NO_OP, mlp(8))], [[0, 2]]),
    "attention alone": ([(NO_OP, mlp(8)), (gqa(4), NO_OP), (NO_OP, mlp(8))], []),
    "attention alone first": ([(gqa(4), NO_OP), (NO_OP, mlp(8)), (NO_OP, mlp(16))], [[1, 2]]),
    "a linear FFN": ([(gqa(4), mlp(48)), (NO_OP, LINEAR), (NO_OP, mlp(8))], []),
    "a run on either side": (
        [(NO_OP, mlp(8)), (NO_OP, mlp(8)), (NO_OP, LINEAR), (NO_OP, mlp(8)), (NO_OP, mlp(8))],
        [[0, 1], [3, 4]],
    ),
    "fewer bits": ([(NO_OP, mlp(8)), (NO_OP, mlp(8)), (NO_OP, HALF), (NO_OP, mlp(8))], [[0, 1]]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", CASES)
def test_runs_by_hand(case):
    layers, wanted = CASES[case]
    assert runs(blocks_of(layers)) == wanted


def test_a_reader_may_want_an_ffn_in_the_last_layer():
    blocks = blocks_of([(NO_OP, mlp(8))] * 3)
    assert runs(blocks, keep_last=True) == [[0, 1]]
    assert fused_blocks(blocks, [[0, 1]])[2] == blocks[2]
    assert runs(blocks[:2], keep_last=True) == []


OPTIONS = st.builds(
    BlockOption,
    st.sampled_from([AttentionOption("gqa", 2), AttentionOption("linear"), *3 * [NO_ATTENTION]]),
    st.sampled_from(
        [*(FFNOption("mlp", w) for w in (8, 16, 24)), NO_FFN]
        + [FFNOption("linear"), FFNOption("mlp", 8, "int4")]
    ),
)
CONFIG = PuzzleModelConfig(
    vocab_size=11, hidden_size=16, num_attention_heads=4, initializer_range=0.5, hidden_act="silu"
)


def random_child(config: PuzzleModelConfig, seed: int) -> PuzzleForCausalLM:
    """In double precision, its norms and biases random as well."""
    torch.manual_seed(seed)
    child = PuzzleForCausalLM(config).double().eval().requires_grad_(False)
    for weight in child.parameters():
        if weight.ndim == 1:
            weight.copy_(torch.randn_like(weight))
    return child


class Own(Library):
    """The sub-blocks of a model itself, as a library."""

    def weights(self, model, layer, option):
        norm = "input" if isinstance(option, AttentionOption) else "post_attention"
        half = "self_attn." if isinstance(option, AttentionOption) else "mlp."
        own = model.model.layers[layer].state_dict()
        return {k: v for k, v in own.items() if k.startswith((f"{norm}_layernorm.", half))}


@torch.no_grad()
def in_parallel(child: PuzzleForCausalLM, merged: list[list[int]], ids: torch.Tensor):
    """Logits of a child whose runs of FFNs all read what enters the first of them."""
    inner, at = child.model, {i: run for run in merged for i in run}
    x_BTH = inner.embed_tokens(ids)
    rope = inner.rotary_emb(x_BTH, position_ids=torch.arange(ids.shape[1])[None])
    entering: dict[int, torch.Tensor] = {}
    for i, layer in enumerate(inner.layers):
        x_BTH = layer.attend(x_BTH, rope)
        if i not in at:
            x_BTH = layer.feed(x_BTH)
            continue
        first_BTH = entering.setdefault(at[i][0], x_BTH)
        x_BTH = x_BTH + layer.mlp(layer.post_attention_layernorm(first_BTH))
    return child.lm_head(inner.norm(x_BTH))


@settings(max_examples=40, deadline=None)
@given(st.lists(OPTIONS, min_size=1, max_size=7), st.booleans(), st.integers(0, 1000))
def test_a_fused_child_is_the_parallel_one_exactly(tmp_path_factory, blocks, bias, seed):
    """And of as many parameters, less the norms and the output biases that have become one."""
    entries = [block.to_config() for block in blocks]
    values = CONFIG.to_dict() | {"blocks": entries, "mlp_bias": bias, "tie_word_embeddings": False}
    child = random_child(PuzzleModelConfig(**values), seed)
    merged = runs(blocks)
    directory = tmp_path_factory.mktemp("fusion")
    library = fuse(child, blocks, merged, Own(directory / "none"), directory)
    fused = realise_child(child, fused_blocks(blocks), library)
    ids = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(seed))
    wanted = in_parallel(child, merged, ids)
    torch.testing.assert_close(fused(ids).logits, wanted, rtol=1e-10, atol=1e-10)

    fewer = sum(len(run) - 1 for run in merged) * 16 * (1 + bias)
    counts = [sum(w.numel() for w in model.parameters()) for model in (child, fused)]
    assert counts[0] - counts[1] == fewer
    assert counts[1] == stack(fused.config).params()


@given(st.lists(OPTIONS, max_size=12))
def test_laws_of_runs(blocks):
    merged, fused = runs(blocks), fused_blocks(blocks)
    flat = [i for run in merged for i in run]
    assert flat == sorted(set(flat)) and all(len(run) > 1 for run in merged)
    assert runs(fused) == [] and fused_blocks(fused) == fused  # runs are maximal
    assert [b.attention for b in fused] == [b.attention for b in blocks]  # none is lost
    assert sum(b.ffn.width for b in fused) == sum(b.ffn.width for b in blocks)
    for i, (before, after) in enumerate(zip(blocks, fused, strict=True)):
        assert (before == after) == (i not in flat)
    for run in merged:
        between = [blocks[i] for i in range(run[0], run[-1] + 1) if i not in run]
        assert all(block == BlockOption(NO_ATTENTION, NO_FFN) for block in between)


def test_half_precision_is_rounded_once():
    torch.manual_seed(0)
    entry = BlockOption(NO_ATTENTION, FFNOption("mlp", 8)).to_config()
    config = PuzzleModelConfig(**CONFIG.to_dict() | {"mlp_bias": True})
    states = [
        {
            name: torch.randn(w.shape).bfloat16()
            for name, w in PuzzleLayer(config, entry).state_dict().items()
        }
        for _ in range(3)
    ]
    found = fuse_weights(states)
    exact = fuse_weights([{name: w.double() for name, w in s.items()} for s in states])
    assert torch.equal(found[NORM], torch.ones(16).bfloat16())
    for name, weight in found.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, exact[name].bfloat16()), name


def test_a_merged_ffn_as_wide_as_the_parents_is_not_the_parents(parent, tmp_path):
    """Two FFNs of 24 make one of 48, which is how wide the parent's own are."""
    blocks = blocks_of([(gqa(4), mlp(24)), (NO_OP, mlp(24)), (gqa(4), mlp(48))])
    half = {
        name: weight[:24] if name.startswith(("mlp.gate", "mlp.up")) else weight
        for name, weight in parent.model.model.layers[0].state_dict().items()
        if name.startswith(("mlp.", "post_"))
    }
    half["mlp.down_proj.weight"] = half["mlp.down_proj.weight"][:, :24]

    class Halves(Library):
        def state(self, layer, option):
            return half

    library = fuse(parent.model, blocks, runs(blocks), Halves(tmp_path / "none"), tmp_path)
    child = realise_child(parent.model, fused_blocks(blocks), library)
    found = child.model.layers[0].mlp.up_proj.weight
    norm_H = half[NORM]
    torch.testing.assert_close(found, torch.cat(2 * [half["mlp.up_proj.weight"] * norm_H]))
    own = parent.model.model.layers
    assert torch.equal(child.model.layers[2].mlp.up_proj.weight, own[2].mlp.up_proj.weight)
    (tmp_path / "layer_000" / "ffn-ffn48.safetensors").unlink()
    with pytest.raises(UserError, match="is missing"):
        realise_child(parent.model, fused_blocks(blocks), library)


def change(before: float, after: float) -> dict[str, float]:
    return {"before": before, "after": after}


@pytest.mark.parametrize(
    ("kl", "latency", "reason"),
    [
        (change(1.0, 1.09), change(2.0, 1.9), None),
        (change(1.0, 0.9), change(2.0, 1.9), None),
        (change(1.0, 1.11), change(2.0, 1.9), "search.fuse_limit=0.1"),
        (change(1.0, float("nan")), change(2.0, 1.9), "search.fuse_limit"),
        (change(1.0, 1.0), change(2.0, 2.0), "no faster"),
        (change(1.0, 1.0), change(2.0, 1.999), "no faster"),  # clocks cannot tell
        (change(1.0, 1.0), change(2.0, float("nan")), "no faster"),
    ],
)
def test_what_is_kept(kl, latency, reason):
    found = reason_against(kl, latency, 0.1)
    assert found is None if reason is None else reason in str(found)


# --- whole runs ---

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
