"""Whole runs over a made-up library: against brute force, resumed, swept, compared."""

from __future__ import annotations

import functools
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import nvlabs_like
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import adaptive
from adaptive import config
from adaptive.core import Budget, InfeasibleError, UserError, Workload
from adaptive.core.blockwise.search import search
from adaptive.core.run import Experiment, RunDir
from adaptive.core.run.engine import run_stages
from adaptive.llm_puzzle.nvlabs.options import options, problem
from adaptive.llm_puzzle.nvlabs.read import read_released
from adaptive.llm_puzzle.plan import from_shape
from adaptive.llm_puzzle.settings import SearchConfig, ShapeConfig

TOKENS = nvlabs_like.BATCH * nvlabs_like.LENGTH
THREE = ShapeConfig(**{**vars(nvlabs_like.SHAPE), "layers": 3})


def load(directory: Path, *changes: str, shape: ShapeConfig = nvlabs_like.SHAPE) -> Experiment:
    """The 70B recipe over a library of a small parent."""
    return adaptive.load(
        "puzzle_70b",
        "library=nvlabs",
        f"library.path={directory}",
        *nvlabs_like.overrides(shape),
        "budget.memory=null",
        "search.gap=0",
        *changes,
    )


def searched(experiment: Experiment, directory: Path) -> dict[str, Any]:
    """The summary of a run without its page, which takes ten times as long as all the rest."""
    run = RunDir(directory)
    with run.opened(experiment.config, experiment.command):
        return run_stages(experiment.stages()[:2], run, device="cpu")


def sums(content: dict[str, Any], names: list[str]) -> dict[str, float]:
    """What a choice of variants costs and loses, straight from the files."""
    picked = [content["block_library.json"][f"layer_{i}"][name] for i, name in enumerate(names)]
    total = {
        key: sum(entry["stats"][key] for entry in picked)
        for key in ("memory_mib", "runtime_ms", "num_params")
    }
    total |= {"kl": sum(entry["metrics"]["kl_div"] for entry in picked)}
    return total | {"lm_loss": sum(entry["metrics"]["lm_loss"] - 2.5 for entry in picked)}


def chosen(directory: Path, which: str, content: dict[str, Any]) -> list[str]:
    """The names in the files of what a run chose."""
    found = json.loads((directory / "artifacts/search/search.json").read_text())["choices"][which]
    return [
        list(layer)[k]
        for layer, k in zip(content["block_library.json"].values(), found, strict=True)
    ]


@pytest.mark.parametrize("metric", ["kl", "lm_loss"])
def test_the_optimum_is_that_of_trying_everything(tmp_path, metric):
    content = nvlabs_like.make(THREE, seed=3)
    directory = nvlabs_like.write(tmp_path / "library", content)
    layers = content["block_library.json"].values()
    every = [sums(content, list(names)) for names in itertools.product(*layers)]
    assert len(every) == 16**3
    runtime = 0.6 * max(total["runtime_ms"] for total in every)
    memory = 0.7 * max(total["memory_mib"] for total in every)
    allowed = [t for t in every if t["runtime_ms"] <= runtime and t["memory_mib"] <= memory]
    summary = searched(
        load(
            directory,
            f"score.metric={metric}",
            f"budget.throughput={1e3 * TOKENS / runtime}",
            f"budget.memory={memory}MiB",
            shape=THREE,
        ),
        tmp_path / "run",
    )
    best = min(allowed, key=lambda total: total[metric])
    assert len(allowed) < len(every) and best[metric] > min(t[metric] for t in every)
    assert summary["child.score.predicted"] == pytest.approx(best[metric], abs=1e-9)
    assert summary["search.status"] == "optimal" and summary["search.gap"] <= 1e-9


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return nvlabs_like.write(tmp_path_factory.mktemp("nvlabs") / "library")


@pytest.fixture(scope="module")
def found(library, tmp_path_factory):
    """A whole run, its page included, at 1.6 times the parent's throughput."""
    experiment = load(library, "budget.throughput=1.6x")
    return experiment.run(tmp_path_factory.mktemp("found") / "run")


def test_the_sums_of_the_summary_are_those_of_the_files(found):
    content, summary = nvlabs_like.make(), found.summary
    total = sums(content, chosen(found.dir, "optimum", content))
    assert summary["nvlabs.kl_sum"] == pytest.approx(total["kl"])
    assert summary["nvlabs.lm_loss_sum"] == pytest.approx(total["lm_loss"])
    assert summary["nvlabs.memory_mib"] == pytest.approx(total["memory_mib"])
    assert summary["nvlabs.runtime_ms"] == pytest.approx(total["runtime_ms"])
    assert summary["nvlabs.params"] == total["num_params"]
    assert summary["nvlabs.throughput"] == pytest.approx(TOKENS / total["runtime_ms"] * 1e3)
    parent = sums(content, [nvlabs_like.parent_text()] * 4)
    assert summary["nvlabs.parent.memory_mib"] == pytest.approx(parent["memory_mib"])
    assert summary["nvlabs.parent.runtime_ms"] == pytest.approx(parent["runtime_ms"])
    speedup = parent["runtime_ms"] / total["runtime_ms"]
    assert summary["speedup.predicted"] == pytest.approx(speedup) and speedup >= 1.6
    assert summary["search.budget"] == "throughput=1.6x" and summary["search.batch"] == 256


def test_what_is_odd_is_counted(found):
    content, summary = nvlabs_like.make(), found.summary
    layers = content["block_library.json"].values()
    entries = [entry for layer in layers for entry in layer.values()]
    assert summary["nvlabs.layers"] == 4 and summary["nvlabs.variants"] == len(entries) == 64
    negative = sum(entry["metrics"]["lm_loss"] < 2.5 for entry in entries)
    assert summary["nvlabs.negative"] == negative > 0
    # Ladders: FFN widths beside the parent's attention; there are no fewer KV heads here.
    ladder = [
        [e["metrics"]["kl_div"] for e in layer.values() if e["stats"]["num_kv_heads"]][:-1]
        for layer in layers
    ]
    rungs = sum(low < high for row in ladder for high, low in itertools.pairwise(row))
    assert summary["nvlabs.inversions"] == rungs > 0
    assert summary["scores.not_finite"] == 0
    assert summary["nvlabs.covers"] == "the blocks alone: no embedding, head or activations"


def test_baselines_keep_the_same_limit_and_lose_more(found):
    content, summary = nvlabs_like.make(), found.summary
    for name in ("uniform", "greedy", "random"):
        total = sums(content, chosen(found.dir, name, content))
        assert summary[f"baseline.{name}.kl_sum"] == pytest.approx(total["kl"])
        assert total["runtime_ms"] <= summary["nvlabs.parent.runtime_ms"] / 1.6 * (1 + 1e-9)
        assert total["kl"] >= summary["nvlabs.kl_sum"] - 1e-9


def test_the_page_shows_it_and_says_what_the_sums_cover(found):
    page = found.report.read_text()
    for words in (
        "sums over the <strong>blocks alone</strong>",
        "batch 256 and 1200 tokens a sequence",
        "made-up GPU (fp8)",
        "The optimum, layer by layer.",
        "kv2+ffn1024",
        "uniform",
        "variants whose LM loss is below the parent",
    ):
        assert words in page
    assert page.count("<figure>") == 3


def test_only_numbers_are_kept(found):
    """Of the library's own words nothing gets into a run: no names of variants."""
    for path in found.dir.rglob("*"):
        if path.is_file():
            assert "(parent * " not in path.read_text(errors="ignore"), path


def test_a_finished_run_is_kept_and_a_changed_library_read_anew(tmp_path, capfd):
    content = nvlabs_like.make()
    directory = nvlabs_like.write(tmp_path / "library", content)
    experiment = load(directory, "budget.throughput=1.4x")
    first = searched(experiment, tmp_path / "run")
    assert searched(experiment, tmp_path / "run") == first
    words = capfd.readouterr().err
    assert "[import] done before, kept" in words and "[search] done before, kept" in words
    other = load(directory, "budget.throughput=1.5x")
    assert searched(other, tmp_path / "run")["nvlabs.kl_sum"] > first["nvlabs.kl_sum"]
    words = capfd.readouterr().err
    assert "[import] done before, kept" in words and "[search] its configuration" in words
    for entry in content["block_library.json"]["layer_0"].values():
        entry["metrics"]["kl_div"] *= 2
    nvlabs_like.write(directory, content)
    assert searched(experiment, tmp_path / "run")["nvlabs.kl_sum"] != first["nvlabs.kl_sum"]
    assert "[import] its configuration or its inputs have changed" in capfd.readouterr().err


def test_scores_that_are_not_finite_are_named_excluded_and_counted(tmp_path, capfd):
    content = nvlabs_like.make()
    names = list(content["block_library.json"]["layer_1"])
    for k, value in ((1, math.nan), (2, math.inf), (3, None)):
        content["block_library.json"]["layer_1"][names[k]]["metrics"]["kl_div"] = value
    directory = nvlabs_like.write(tmp_path / "library", content)
    summary = searched(load(directory, "budget.throughput=1.3x"), tmp_path / "run")
    assert summary["scores.not_finite"] == 3
    assert (
        "left out, kl is not finite: layer 1 kv2+ffn768, layer 1 kv2+ffn640, layer 1 kv2+ffn512"
    ) in capfd.readouterr().err
    assert chosen(tmp_path / "run", "optimum", content)[1] not in names[1:4]
    assert math.isfinite(summary["nvlabs.kl_sum"])


@functools.cache
def released(seed: int):
    import tempfile

    content = nvlabs_like.make(seed=seed)
    with tempfile.TemporaryDirectory() as directory:
        library = read_released(str(nvlabs_like.write(Path(directory), content)))
    layers = options(library, from_shape(nvlabs_like.SHAPE))
    return problem(layers, "kl", Workload(library.batch, library.seq_len))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 5),
    st.tuples(st.floats(0.3, 1), st.floats(0.3, 1)),
    st.tuples(st.floats(0.5, 1), st.floats(0.5, 1)),
)
def test_a_tighter_budget_never_has_a_lower_kl(seed, loose, factors):
    """Budgets in parts of the parent; the tighter one is within the other on both resources."""
    priced = released(seed)
    losses = []
    for latency, memory in (loose, (loose[0] * factors[0], loose[1] * factors[1])):
        budget = Budget({"latency": f"{100 * latency}%", "memory": f"{100 * memory}%"})
        losses.append(search({1: priced}, budget, SearchConfig(gap=0.0)).allocation.loss)
    assert losses[1] >= losses[0] - 1e-9


def test_a_budget_out_of_reach_says_what_can_be_had(library, tmp_path):
    """Nothing takes longer than the parent."""
    experiment = load(library, "budget.throughput=null", "budget.latency='>=1000s'")
    with pytest.raises(InfeasibleError, match=r"budget\.latency>=1000s") as caught:
        searched(experiment, tmp_path / "run")
    stats = nvlabs_like.stats(2, 1024)
    assert caught.value.reachable == pytest.approx(4 * stats["runtime_ms"] / 1e3)


def test_the_published_child_beside_the_optimum_at_its_own_cost(tmp_path):
    """On a made-up library of its parent's shape."""
    shape = nvlabs_like.LLAMA_70B
    content = nvlabs_like.make(shape)
    directory = nvlabs_like.write(tmp_path / "library", content)
    experiment = adaptive.load(
        "puzzle_70b", "library=nvlabs", f"library.path={directory}", "arch=super_49b"
    )
    summary = searched(experiment, tmp_path / "run")
    total = sums(content, chosen(tmp_path / "run", "published", content))
    assert summary["child.params"] == 49_867_145_216
    assert summary["arch.kl_sum"] == pytest.approx(total["kl"])
    assert summary["arch.memory_mib"] == pytest.approx(total["memory_mib"])
    assert summary["arch.runtime_ms"] == pytest.approx(total["runtime_ms"])
    # What the file of the child holds beside its blocks: embedding, head, last norm.
    assert summary["arch.params"] == 49_867_145_216 - (2 * 128_256 + 1) * 8192
    assert summary["arch.missing"] == summary["arch.approximate"] == 0
    assert summary["nvlabs.runtime_ms"] <= total["runtime_ms"] * (1 + 1e-8)
    assert summary["nvlabs.memory_mib"] <= total["memory_mib"] * (1 + 1e-8)
    assert summary["nvlabs.kl_sum"] < summary["arch.kl_sum"]
    excess = summary["arch.kl_sum"] - summary["nvlabs.kl_sum"]
    assert summary["arch.loss_over_optimum"] == pytest.approx(excess)
    assert summary["search.budget"].startswith("those of super_49b: latency ")


def test_layers_of_a_child_that_are_not_in_the_library_are_named(library, tmp_path):
    halves = [
        {"attention": {"n_heads_in_group": group}, "ffn": {"intermediate_size": width}}
        for group, width in ((2, 512), (4, 512), (2, 250), (2, 1024))
    ]
    arch = tmp_path / "config.json"
    arch.write_text(
        json.dumps(
            {
                "model_type": "nemotron-nas",
                "hidden_size": 256,
                "num_attention_heads": 4,
                "vocab_size": 512,
                "max_position_embeddings": 4096,
                "block_configs": halves,
            }
        )
    )
    result = load(library, f"arch={arch}").run(tmp_path / "run")
    assert result.summary["arch.missing"] == result.summary["arch.approximate"] == 1
    assert result.summary["arch.missing_layers"] == "layer 1 (kv1+ffn512)"
    content = nvlabs_like.make()
    layers = content["block_library.json"]
    own = [
        layers["layer_0"][nvlabs_like.text(2, 512, 50)],
        layers["layer_2"][nvlabs_like.text(2, 256, 25)],
        layers["layer_3"][nvlabs_like.parent_text()],
    ]
    kl = sum(entry["metrics"]["kl_div"] for entry in own)
    assert result.summary["arch.kl_sum"] == pytest.approx(kl)
    page = result.report.read_text()
    assert "layer 1 (kv1+ffn512)" in page and "layer 2 (kv2+ffn250 as kv2+ffn256)" in page


@pytest.mark.parametrize("parts", ["[1e-5]", "[0.01,0.5]"])
def test_extreme_frontiers_have_a_page_too(library, tmp_path, parts):
    """No-ops alone take no time; a lower limit may leave no point at all."""
    least = 0.9 * 4 * nvlabs_like.stats(2, 1024)["num_params"]
    limits = [] if parts == "[1e-5]" else [f"budget.params='>={least}'"]
    settings = [f"search.frontier={parts}", "budget.throughput=null", "budget.latency=100%"]
    result = load(library, *settings, *limits).run(tmp_path / "run")
    rows = json.loads((result.dir / "artifacts/search/frontier.json").read_text())
    if limits:
        assert all("loss" not in row and row["reason"] for row in rows) and len(rows) == 2
    else:
        assert rows[0]["latency"] == 0 and rows[0]["speedup"] is None and rows[0]["loss"] > 0
    assert "Frontier" in result.report.read_text()


MISTAKES = {
    "library.path=null": "library=nvlabs needs library.path=DIR",
    "library=own": "is not read by library=own, which builds its library: add library=nvlabs",
    "library=nvlab": "unknown library 'nvlab', choose one of nvlabs, own; did you mean 'nvlabs'?",
    "library.source=theirs": "library.source='theirs' is unknown, choose one of own, nvlabs",
    "score.metric=cosine": "score.metric=cosine is not in a library of library=nvlabs, choose one",
    "search.batches=[8,16]": "cannot be tried with library=nvlabs, which was measured at one",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_settings_that_do_not_go_together_are_refused(library, change):
    with pytest.raises(UserError) as caught:
        load(library, change)
    assert MISTAKES[change] in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_and_python_give_the_same_experiment():
    """Both as users write them: the group and a key of it side by side."""
    words = ["library=nvlabs", "library.path=DIR", "budget.memory=80000MiB"]
    words += ["budget.throughput=6000"]
    command = [sys.executable, "-m", "adaptive.run", "+exp=puzzle_70b", *words, "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    experiment = adaptive.load("puzzle_70b", *words)
    assert config.validated(OmegaConf.create(done.stdout)) == experiment.config
    settings = experiment.config
    assert (settings.library.source, settings.library.path) == ("nvlabs", "DIR")
    assert settings.budget.limits() == {"memory": "80000MiB", "throughput": "6000"}
    assert settings.plan_only and settings.shape is not None and settings.shape.layers == 80


@pytest.mark.parametrize("own", [(), ("library=own",)])
def test_the_own_library_is_the_default(own):
    assert adaptive.load("puzzle_tiny", *own).config.library.source == "own"


def test_a_recipe_may_choose_a_library(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /task: puzzle\n"
        "  - override /library: nvlabs\nname: mine\nbudget: {latency: 1.5x}\nlibrary: {path: DIR}\n"
    )
    experiment = adaptive.load("mine", config_dir=str(tmp_path))
    assert vars(experiment.config.library) == {"source": "nvlabs", "path": "DIR"}


@pytest.mark.slow  # three processes that import torch
def test_a_sweep_runs_every_budget_and_resumes(tmp_path):
    directory = nvlabs_like.write(tmp_path / "library", nvlabs_like.make(nvlabs_like.LLAMA_70B))
    command = [sys.executable, "-m", "adaptive.run", "--multirun", "+exp=puzzle_70b"]
    command += ["library=nvlabs", f"library.path={directory.name}", "budget.throughput=6000,9000"]
    command += ["search.frontier=[0.6]", "baselines=[]"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    runs = sorted((tmp_path / "runs/puzzle_70b/sweep").iterdir())
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs]
    assert len(runs) == 2 and all((run / "report.html").is_file() for run in runs)
    for summary, rate in zip(summaries, (6000, 9000), strict=True):
        assert summary["nvlabs.throughput"] >= rate and summary["nvlabs.layers"] == 80
        assert summary["nvlabs.memory_mib"] <= 80e9 / 2**20
    assert summaries[0]["nvlabs.kl_sum"] < summaries[1]["nvlabs.kl_sum"]
    assert "[search] done in" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "2 runs in" in again.stderr and "2 done before" in again.stderr
