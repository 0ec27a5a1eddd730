"""The task `verify_costs` on a CPU: children predicted and measured, killed, resumed, refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import adaptive
from adaptive.core.cost import MeasuredTable
from adaptive.core.engine.verify import Verifier
from adaptive.core.errors import UserError
from adaptive.core.hardware import CpuClock, clock_for, default_table_path
from adaptive.core.profiling import profile
from adaptive.core.run import Experiment, Result

COMMIT = "6e5f8c0"
SETTINGS = [
    "device=cpu",
    "dtype=fp32",
    "spread=0.5",
    "seconds=2",
    "variants.ffn_fractions=[1.0,0.5]",
    "variants.ffn_multiple=16",
    "workload.batches=[1,2]",
    "workload.contexts=[4,8,32]",
    "workload.prompts=[4,8]",
    "workload.prefill_batches=[1,2]",
    "workload.prefill_tokens=16",
    "children.count=4",
    "children.batches=[1,2]",
    "children.generate_batches=[1,2]",
    "children.prompts=[4,8]",
    "children.outputs=[2,6]",
    "children.generations=3",
    "children.seconds=0.02",
]
CHILDREN, BATCHES, GENERATIONS = 4, 2, 3

# What those who compare runs read.
KEYS = {
    "decode.error.mean",
    "decode.error.worst",
    "generate.error.mean",
    "generate.error.worst",
    "memory.error.mean",
    "interpolation.error.mean",
    "device",
    "commit",
    "children",
}


@pytest.fixture(scope="module", autouse=True)
def commit(cache):
    """Measured by a commit that stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "git_state", lambda: {"commit": COMMIT, "dirty": True})
        yield


def experiment(model: Path, *overrides: str) -> Experiment:
    return adaptive.load("verify_costs", f"model={model}", *SETTINGS, *overrides)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory) -> Result:
    return experiment(model).run(tmp_path_factory.mktemp("verify") / "run")


@pytest.fixture
def own(finished, tmp_path) -> Path:
    """A copy of the user's table."""
    return Path(shutil.copyfile(default_table_path(clock_for("cpu").origin), tmp_path / "own.csv"))


@pytest.fixture(scope="module")
def measurements(finished) -> list[dict]:
    return json.loads((finished.dir / "artifacts/report/measurements.json").read_text())


def kept(text: str) -> set[str]:
    return {line[1:].partition("]")[0] for line in text.splitlines() if "done before" in line}


# --- a run ---


def test_the_summary_says_how_far_off_it_was(finished):
    summary = finished.summary
    assert set(summary) >= KEYS
    assert summary["device"] == clock_for("cpu").origin.device
    assert summary["children"] == CHILDREN and summary["commit"] == f"{COMMIT}-dirty"
    for kind in ("decode", "generate", "memory"):
        mean, worst = summary[f"{kind}.error.mean"], summary[f"{kind}.error.worst"]
        assert 0 <= mean <= worst < 20  # a busy machine
        assert abs(summary[f"{kind}.error.bias"]) <= mean
    # Weights and caches are counted to the byte; the CPU counts no more.
    assert summary["memory.error.worst"] == 0
    assert math.isfinite(summary["interpolation.error.mean"])


def test_errors_are_those_of_the_measurements(finished, measurements):
    names = {"decode": "decode", "generate": "generation", "memory": "memory"}
    for kind, name in names.items():
        errors = [
            row["predicted"] / row["measured"] - 1 for row in measurements if row["name"] == name
        ]
        summary = finished.summary
        assert summary[f"{kind}.error.mean"] == pytest.approx(np.mean(np.abs(errors)))
        assert summary[f"{kind}.error.worst"] == pytest.approx(np.max(np.abs(errors)))
        assert summary[f"{kind}.error.bias"] == pytest.approx(np.mean(errors))


def test_every_child_does_what_it_was_asked(measurements):
    for i in range(CHILDREN):
        rows = [row for row in measurements if row["child"] == i]
        decode = [row for row in rows if row["name"] == "decode"]
        assert [row["batch"] for row in decode] == [1, 2]
        assert all(4 <= row["prompt"] + 1 <= 32 and row["output"] == 1 for row in decode)
        generated = [row for row in rows if row["name"] in ("generation", "memory")]
        assert len(generated) == (2 if i < GENERATIONS else 0)
        for row in generated:
            assert row["batch"] in (1, 2) and 4 <= row["prompt"] <= 8 and 2 <= row["output"] <= 6
        assert all(row["how"] in ("measured", "interpolated") for row in rows)
    assert len({(row["batch"], row["prompt"]) for row in measurements}) > 4


def test_the_files(finished):
    artifacts = finished.dir / "artifacts"
    files = sorted(path.name for path in (artifacts / "children").glob("child*.json"))
    assert files == [f"child{i:03d}.json" for i in range(CHILDREN)]
    table = MeasuredTable.load(artifacts / "costs/costs.csv", clock_for("cpu").origin)
    assert len(table) == finished.summary["table.rows"] > 50
    assert table.notes["commit"] == f"{COMMIT}-dirty" and re.fullmatch(
        r"\d{4}-\d\d-\d\d", table.notes["date"]
    )
    user = default_table_path(table.origin).read_text()
    assert user == (artifacts / "costs/costs.csv").read_text()
    assert finished.report == finished.dir / "report.html"


def test_the_report_holds_a_figure_for_each_kind_and_every_measurement(finished, model):
    page = finished.report.read_text(encoding="utf-8")
    assert f"Costs of {model}" in page
    assert page.count("<figure>") == 3
    for title in ("Decode", "Generation", "Memory", "Measurements"):
        assert f">{title}</h2>" in page
    for name in ("decode", "generate", "memory"):
        value = f"{100 * finished.summary[f'{name}.error.mean']:.2f}"
        assert re.search(rf"{name}: mean error.*?{re.escape(value)}", page, re.DOTALL)
    # Few points are named, with their error: those of generations and memory.
    named = {i for i in range(CHILDREN) if f"child {i} (" in page}
    assert CHILDREN * BATCHES > 6 >= GENERATIONS and named == set(range(GENERATIONS))
    assert page.count("<tr>") >= CHILDREN * BATCHES + 2 * GENERATIONS


def test_without_generations_there_is_neither_time_nor_memory_of_them(
    finished, own, model, tmp_path
):
    settings = ("children.generations=0", "children.count=1", f"table={own}")
    result = experiment(model, *settings).run(tmp_path / "run")
    assert "decode.error.mean" in result.summary
    assert not {key for key in result.summary if key.startswith(("generate.", "memory."))}
    assert (result.dir / "report.html").read_text().count("<figure>") == 1


# --- killed, resumed, changed ---


def test_what_was_killed_goes_on_with_the_next_child(own, model, tmp_path, monkeypatch):
    forward, calls = Verifier.forward, []

    def killed(verifier, engine, *where):
        if len(calls) == 2 * BATCHES:  # the third child's first step
            raise KeyboardInterrupt
        calls.append(where)
        return forward(verifier, engine, *where)

    monkeypatch.setattr(Verifier, "forward", killed)
    run, directory = experiment(model, f"table={own}"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run.run(directory)
    partial = directory / "artifacts" / ".children.partial"
    before = {path.name: path.read_text() for path in partial.glob("child*.json")}
    assert set(before) == {"child000.json", "child001.json"}

    monkeypatch.setattr(Verifier, "forward", lambda *args: calls.append(args[2:]) or forward(*args))
    result = run.run(directory)
    assert len(calls) == CHILDREN * BATCHES  # none of them twice
    children = directory / "artifacts" / "children"
    assert {name: (children / name).read_text() for name in before} == before
    assert result.summary["children"] == CHILDREN


def test_sizes_and_predictions_follow_from_the_seed_and_the_table(
    measurements, own, model, tmp_path
):
    result = experiment(model, f"table={own}").run(tmp_path / "run")
    found = json.loads((result.dir / "artifacts/report/measurements.json").read_text())
    where = ("child", "name", "batch", "prompt", "output")
    assert [[row[k] for k in where] for row in found] == [
        [row[k] for k in where] for row in measurements
    ]
    assert [row["predicted"] for row in found] == [row["predicted"] for row in measurements]


def test_a_second_run_keeps_everything(finished, model, capsys):
    again = experiment(model).run(finished.dir)
    assert kept(capsys.readouterr().err) == {"costs", "children", "report"}
    assert again.summary == finished.summary


def test_other_children_keep_the_table(finished, model, tmp_path, capsys, monkeypatch):
    directory = Path(shutil.copytree(finished.dir, tmp_path / "run"))
    monkeypatch.setattr(CpuClock, "prepare", fail_if_blocks(CpuClock.prepare))
    result = experiment(model, "children.count=2").run(directory)
    assert kept(capsys.readouterr().err) == {"costs"}
    assert result.summary["children"] == 2


def fail_if_blocks(prepare):
    """A ``prepare`` that takes an engine and its reference and no blocks."""

    def checked(clock, subjects, calls):
        assert set(subjects) == {"it", "reference"}
        return prepare(clock, subjects, calls)

    return checked


@pytest.mark.parametrize("pairs", [None, True, False])
def test_children_are_timed_in_turns_with_their_parent_on_a_cpu(
    own, model, tmp_path, monkeypatch, pairs
):
    seen = []

    class Seeing(Verifier):
        def __init__(self, *args):
            super().__init__(*args)
            seen.append(self.reference)

    monkeypatch.setattr("adaptive.core.profiling.verify_costs.Verifier", Seeing)
    settings = ("children.count=1", "children.generations=1", "children.layers=3", f"table={own}")
    chosen = () if pairs is None else (f"pairs={pairs}",)
    experiment(model, *settings, *chosen).run(tmp_path / "run")
    [reference] = seen
    assert (reference is not None) == (pairs is not False)
    if reference is not None:
        assert len(reference.shapes) == 2 * 3


# --- tables of elsewhere ---


def moved(own: Path, **changes) -> Path:
    table = MeasuredTable.load(own)
    table.origin = replace(table.origin, **changes)
    table.save()
    return own


@pytest.mark.parametrize(("field", "value"), [("device", "nvidia-h100"), ("torch", "1.0")])
def test_a_table_of_elsewhere_is_refused_by_name_unless_forced(own, model, tmp_path, field, value):
    moved(own, **{field: value})
    before = own.read_bytes()
    settings = (f"table={own}", "children.count=1", "children.generations=0")
    with pytest.raises(UserError, match=f"own.csv was measured with {field}='{value}', here it is"):
        experiment(model, *settings).run(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("child*.json"))
    result = experiment(model, *settings, "force=true").run(tmp_path / "run")
    here = clock_for("cpu").origin.device
    assert result.summary["device"] == here  # where the children ran
    assert result.summary["table.device"] == (value if field == "device" else here)
    assert own.read_bytes() == before


def test_what_a_forced_table_lacks_is_measured_beside_it(own, model, tmp_path):
    """What is measured here has no place in a file that says that it is of elsewhere."""
    moved(own, device="nvidia-h100")
    before, rows = own.read_bytes(), len(MeasuredTable.load(own))
    settings = (f"table={own}", "children.count=1", "children.generations=0", "force=true")
    result = experiment(model, *settings, "workload.contexts=[4,8,16,32]").run(tmp_path / "run")
    assert own.read_bytes() == before
    assert result.summary["table.rows"] == rows + 3 * 2  # three numbers of KV heads, two batches


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "is truncated"),
        (lambda text: text.replace(text.splitlines()[4].split(",")[-3], "-1"), "seconds=-1.0"),
    ],
)
def test_a_damaged_table_is_refused(own, model, tmp_path, change, words):
    own.write_text(change(own.read_text()))
    before = own.read_bytes()
    with pytest.raises(UserError, match=f"own.csv.*{words}"):
        experiment(model, f"table={own}").run(tmp_path / "run")
    assert own.read_bytes() == before


def test_asking_beyond_the_table_is_refused_with_the_settings_to_change(own, model, tmp_path):
    settings = (f"table={own}", "children.prompts=[100,200]")
    with pytest.raises(UserError, match=r"children\.prompts=\[100, 200\] .*lie outside of what"):
        experiment(model, *settings).run(tmp_path / "run")


@pytest.mark.slow
def test_the_tiny_recipe(tmp_path):
    short = ["seconds=8", "children.count=2", "children.generations=1", "children.seconds=0.3"]
    recipe = adaptive.load("verify_costs_tiny", *short, f"table={tmp_path / 'own.csv'}")
    result = recipe.run(tmp_path / "run")
    assert set(result.summary) >= KEYS
    assert result.summary["decode.error.mean"] < 0.5  # a busy machine; 0.02 on a quiet one
    assert result.summary["memory.error.worst"] == 0
