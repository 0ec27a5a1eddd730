"""Whole runs with pairs trained together: what is chosen, told, resumed and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_puzzle import ROOFLINE, files

import adaptive
from adaptive.core import UserError
from adaptive.core.run import Result
from adaptive.llm_puzzle import deploy
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.library import Library
from adaptive.llm_puzzle.parent import load_parent
from adaptive.llm_puzzle.score import compare

CPU = torch.device("cpu")
SETTINGS = [
    *ROOFLINE,
    "data.length=24",
    "data.tokens=1500",
    "data.validation_tokens=300",
    "distill.tokens=200",
    "distill.coupled_tokens=1500",
    "score.tokens=200",
    "verify.seconds=0.1",
    "gkd.tokens=0",
    "baselines=[uniform]",
    "search.frontier=[0.8,0.6,0.5,0.4]",
    "budget.latency=50%",
]


def experiment(parent_dir: Path, *overrides: str) -> adaptive.load:
    return adaptive.load("puzzle_tiny", f"parent={parent_dir}", *SETTINGS, *overrides)


@pytest.fixture(scope="module")
def finished(parent_dir, tmp_path_factory) -> Result:
    return experiment(parent_dir).run(tmp_path_factory.mktemp("coupled") / "run")


def read(directory: Path, *path: str) -> Any:
    return json.loads(directory.joinpath("artifacts", *path).read_text())


def test_a_run_chooses_among_the_pairs_that_are_left(finished):
    step = read(finished.dir, "search_decoupled", "step.json")
    chosen = read(finished.dir, "search", "architectures.json")["child"]
    assert all(block in pairs for block, pairs in zip(chosen, step["pairs"], strict=True))
    assert all(len(pairs) <= 1 + 3 for pairs in step["pairs"])
    problem = read(finished.dir, "search", "problem.json")
    left = [sum(loss is not None for loss in row) for row in problem["loss"]]
    assert left == [len(pairs) for pairs in step["pairs"]]
    assert finished.summary["scores_coupled.not_finite"] == 0


def test_the_summary_says_what_it_brought(finished, parent):
    summary = finished.summary
    records = read(finished.dir, "coupled", "coupled.json")
    assert summary["coupled.pairs"] == len(records) > 0
    assert summary["coupled.loss"] < summary["coupled.loss_start"]
    assert summary["coupled.loss"] == pytest.approx(np.mean([r["loss"] for r in records]))
    assert summary["coupled.tokens_per_second"] > 0
    # Without global distillation the child on disk is the one made of pairs trained together.
    child = load_parent(str(finished.dir / "artifacts/child/model"), CPU, torch.float32)
    rows = Rows.load(finished.dir / "artifacts/calibration/validation.safetensors")
    measured = compare(parent.model, child.model, rows, 10_000)["kl"]
    assert summary["coupled.kl"] == pytest.approx(measured, rel=1e-4)
    assert summary["coupled.kl.decoupled"] != pytest.approx(measured, rel=1e-3)
    assert "Coupled distillation</h2>" in finished.report.read_text(encoding="utf-8")


def test_the_child_is_made_of_the_pairs(finished):
    chosen = read(finished.dir, "search", "architectures.json")["child"]
    library = Library(Path(), finished.dir / "artifacts" / "coupled")
    blocks = [BlockOption.from_config(entry) for entry in chosen]
    held = [i for i, block in enumerate(blocks) if library.holds_together(i, block)]
    assert held  # or the run shows nothing
    weights = load_file(finished.dir / "artifacts" / "child" / "model" / "model.safetensors")
    assert library.coupled is not None
    for i in held:  # no global distillation in this run
        for name, weight in library.coupled.state(i, blocks[i]).items():
            assert torch.equal(weights[f"model.layers.{i}.{name}"], weight)


def test_a_run_cut_short_ends_with_the_same_bytes(parent_dir, finished, tmp_path, monkeypatch):
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    done = run / "artifacts" / "coupled"
    shutil.rmtree(done)
    save, saved = Library.save, []

    def cut(library: Library, option, module, record) -> None:
        save(library, option, module, record)
        saved.append(library.path(record.layer, option))
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Library, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        experiment(parent_dir).run(run)
    assert saved[0].is_file() and not done.exists()
    result = experiment(parent_dir).run(run)
    assert len(saved) == len(set(saved)) == finished.summary["coupled.pairs"] > 1
    assert files(done, "*.safetensors") == files(
        finished.dir / "artifacts" / "coupled", "*.safetensors"
    )
    for name in ("coupled.loss", "coupled.kl", "child.loss.gkd", "coupled.kl.decoupled"):
        assert result.summary[name] == finished.summary[name]


def test_a_promise_that_the_reduced_space_cannot_keep_leaves_the_first_child(
    parent_dir, finished, tmp_path, monkeypatch
):
    """The first measurement of the last search asks for more than any pair that is left gives."""
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    measured: list[str] = []

    def checker(run, ctx, problems, table, checks):
        def measure(batch: int, choice: np.ndarray) -> float:
            measured.append(ctx.name)
            slow = 100.0 if measured.count("search") == 1 and ctx.name == "search" else 1.0
            return slow * problems[batch].total(choice)["latency"]

        return measure

    monkeypatch.setattr(deploy, "checker", checker)
    result = experiment(parent_dir, "baselines=[]", "search.gap=2e-4").run(run)
    assert measured == ["search_decoupled", "search", "search"]
    first = read(run, "search_decoupled", "step.json")["blocks"]
    assert read(run, "search", "architectures.json")["child"] == first
    assert result.summary["budget.met"] is True


def test_halves_trained_apart_are_kept(parent_dir, finished, tmp_path, capsys):
    """Whether pairs are trained together changes nothing before the first search."""
    run = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    result = experiment(parent_dir, "distill.coupled_tokens=0").run(run)
    log = capsys.readouterr().err
    done = {line[1:].partition("]")[0] for line in log.splitlines() if "done before" in line}
    assert done == {"costs", "calibration", "contexts", "library", "scores"}
    assert not any(name.startswith("coupled") for name in result.summary)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.rounds=2", r"^distill.coupled_tokens=1500 does not go with search.rounds=2"),
        (
            "search.fuse_ffn=true",
            r"^distill.coupled_tokens=1500 does not go with search.fuse_ffn",
        ),
        ("distill.coupled_tokens=-1", r"^distill.coupled_tokens=-1 must not be negative"),
        ("distill.coupled_pairs=0", r"^distill.coupled_pairs=0 must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(parent_dir, override, message):
    with pytest.raises(UserError, match=message):
        experiment(parent_dir, override).stages()
