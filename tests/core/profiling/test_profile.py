"""The task `profile` on a CPU: a table, its figures, and what becomes of a table that is there."""

from __future__ import annotations

import html
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import adaptive
from adaptive.core.cost import MeasuredTable, Origin, Row, RowKey
from adaptive.core.cost.crossval import CrossValidation, Held
from adaptive.core.errors import UserError
from adaptive.core.hardware import CpuClock, clock_for, default_table_path
from adaptive.core.profiling import profile as task
from adaptive.core.profiling.config import ProfileConfig
from adaptive.core.profiling.grid import Request, blocks_of, model_shape, requests
from adaptive.core.profiling.profile import interpolation_errors, make_clock, open_table
from adaptive.core.run import Experiment, Result

COMMIT = "6e5f8c0"
SETTINGS = [
    "device=cpu",
    "dtype=fp32",
    "spread=0.5",
    "seconds=2",
    "variants.ffn_fractions=[1.0,0.75,0.5]",
    "variants.ffn_multiple=16",
    "workload.batches=[1,2]",
    "workload.contexts=[4,8,16]",
    "workload.prompts=[4,8]",
    "workload.prefill_batches=[1,2]",
    "workload.prefill_tokens=16",
]


@pytest.fixture(scope="module", autouse=True)
def commit(cache):
    """Measured by a commit that stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "git_state", lambda: {"commit": COMMIT, "dirty": False})
        yield


def experiment(model: Path, *overrides: str) -> Experiment:
    return adaptive.load("profile", f"model={model}", *SETTINGS, *overrides)


def wanted(model: Path) -> list[Request]:
    """All that is to be measured."""
    config = experiment(model).config
    assert isinstance(config, ProfileConfig)
    blocks = blocks_of(model_shape(str(model)), config.variants)
    return list(requests(blocks, config.workload, vision=False))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory) -> Result:
    return experiment(model).run(tmp_path_factory.mktemp("profile") / "run")


@pytest.fixture
def own(finished, tmp_path) -> Path:
    """A copy of the finished run's table, to damage or extend."""
    return Path(shutil.copyfile(finished.summary["table"], tmp_path / "own.csv"))


def rewrite(path: Path, **changes) -> Origin:
    """Gives a table another origin."""
    table = MeasuredTable.load(path)
    table.origin = replace(table.origin, **changes)
    table.save()
    return table.origin


# --- a run ---


def test_the_summary(finished, cache):
    summary, clock = finished.summary, clock_for("cpu")
    assert summary["device"] == clock.origin.device
    assert summary["table"] == str(default_table_path(clock.origin))
    assert Path(summary["table"]).is_relative_to(cache)
    assert summary["rows"] == summary["rows.measured"] > 50 and summary["rows.skipped"] == 0
    for name in ("interpolation.error.mean", "interpolation.error.batch"):
        assert 0 <= summary[name] < 10  # a busy machine
    check = MeasuredTable.load(finished.dir / "artifacts/profile/costs.csv").cross_validate()
    mean = check.along("intermediate", "kv_heads", "length")
    assert summary["interpolation.error.mean"] == pytest.approx(mean, rel=1e-3)  # six digits a row


def test_a_row_for_every_size_of_every_block_and_no_other(finished, model):
    table = MeasuredTable.load(finished.summary["table"])
    assert {row.key for row in table} == {
        RowKey.of(w.block, w.phase, w.batch, w.length, "fp32", "eager") for w in wanted(model)
    }
    assert all(0 < row.seconds < 1 and row.repeats >= 1 for row in table)


def test_the_files(finished):
    artifacts = finished.dir / "artifacts" / "profile"
    user, run = Path(finished.summary["table"]), artifacts / "costs.csv"
    assert user.read_text() == run.read_text()
    assert finished.report.read_text() == (artifacts / "report.html").read_text()


def test_the_table_says_where_and_when_it_is_from(finished):
    table = MeasuredTable.load(finished.summary["table"])
    assert table.origin == clock_for("cpu").origin
    assert table.notes["date"] == datetime.now(UTC).date().isoformat()
    assert table.notes["commit"] == COMMIT
    assert "multiprocessors" not in table.notes  # of a GPU


def test_the_report_shows_fits_rows_and_settings(finished, model):
    page = finished.report.read_text(encoding="utf-8")
    shown = (f"Profile of {model}", finished.summary["device"], "interpolation error")
    for words in (*shown, "Fitted models", "ffn_fractions"):
        assert words in page, words
    for row in MeasuredTable.load(finished.summary["table"]):
        assert row.key.block in page


def test_a_table_by_formula_has_the_fits_of_the_formula(model, tmp_path):
    """A nanosecond a byte and ten a FLOP: known, so that the report and the errors are."""
    clock, rows = clock_for("cpu"), []
    for w in wanted(model):
        phase = "prefill" if w.block.pointwise else w.phase
        length = 1 if phase == "prefill" and w.phase == "decode" else w.length
        count = (w.batch, length)
        seconds = 1e-9 * getattr(w.block, f"{phase}_bytes")(*count, "fp32")
        seconds += 1e-8 * getattr(w.block, f"{phase}_flops")(*count)
        key = RowKey.of(w.block, w.phase, w.batch, w.length, "fp32", "eager")
        rows.append(Row(key, seconds))
    path = tmp_path / "formula.csv"
    MeasuredTable(clock.origin, rows, path=path).save()
    result = experiment(model, f"table={path}").run(tmp_path / "run")
    assert result.summary["rows.measured"] == 0
    assert result.summary["interpolation.error.mean"] == pytest.approx(0, abs=1e-4)
    page = html.unescape((result.dir / "report.html").read_text(encoding="utf-8"))
    fits = MeasuredTable.load(path).fits()
    assert {"ffn", "attention", "linear"} <= {fit.group.kind for fit in fits}
    for fit in fits:
        name, _, words = fit.describe().partition(": ")
        assert f"<dt>{name}</dt><dd>{words}</dd>" in page
    assert "None: the rows show" not in page
    assert "0.0\N{NO-BREAK SPACE}%" in page or "0.0 %" in page


# --- a table that is there already ---


class Timed:
    """Counts what clocks are asked to measure."""

    def __init__(self, monkeypatch):
        self.subjects = 0
        prepare = CpuClock.prepare

        def counted(clock, subjects, calls):
            self.subjects += len(subjects)
            return prepare(clock, subjects, calls)

        monkeypatch.setattr(CpuClock, "prepare", counted)


@pytest.fixture
def timed(monkeypatch) -> Timed:
    return Timed(monkeypatch)


def test_what_is_known_is_not_measured_again(finished, model, own, tmp_path, timed):
    text = own.read_text().replace(COMMIT, "0123abc")
    own.write_text(text)
    result = experiment(model, f"table={own}").run(tmp_path / "run")
    assert timed.subjects == result.summary["rows.measured"] == 0
    assert result.summary["rows"] == finished.summary["rows"]
    assert result.summary["table"] == str(own)
    assert own.read_text() == text  # nor is it said to be of today


def test_what_is_missing_is_measured(finished, model, own, tmp_path, timed):
    table = MeasuredTable.load(own)
    table.notes = {"date": "2020-01-01", "commit": "0123abc", "by": "me"}
    table.add(Row(RowKey("sampling", "decode", 1, 16, "fp32", "eager"), 1.0))
    rows = {row.key: row for row in table}
    for key in list(rows)[3:6]:
        del rows[key]
    MeasuredTable(table.origin, rows.values(), path=own, notes=table.notes).save()
    wider = ["workload.contexts=[4,8,16,12]", f"table={own}"]
    result = experiment(model, *wider).run(tmp_path / "run")
    # Three that were lost, and one context at three numbers of KV heads and two batches.
    assert timed.subjects == result.summary["rows.measured"] == 3 + 3 * 2
    assert result.summary["rows"] == finished.summary["rows"] + 6 + 1
    again = MeasuredTable.load(own)
    assert {row.key: row for row in again}.items() >= rows.items()
    assert again.notes["by"] == "me" and again.notes["commit"] == COMMIT


def test_a_kill_loses_no_group_that_was_measured(model, tmp_path, monkeypatch):
    path, compare = tmp_path / "own.csv", CpuClock.compare
    groups: list[int] = []

    def killed(clock, subjects, calls=None, **stop):
        if len(groups) == 4:
            raise KeyboardInterrupt
        groups.append(len(subjects))
        return compare(clock, subjects, calls, **stop)

    monkeypatch.setattr(CpuClock, "compare", killed)
    run = experiment(model, f"table={path}")
    with pytest.raises(KeyboardInterrupt):
        run.run(tmp_path / "run")
    kept = list(MeasuredTable.load(path, clock_for("cpu").origin))
    assert len(kept) == sum(groups) > 0
    monkeypatch.setattr(CpuClock, "compare", compare)
    result = run.run(tmp_path / "run")
    assert result.summary["rows.measured"] == result.summary["rows"] - len(kept)
    assert list(filter(lambda row: row in kept, MeasuredTable.load(path))) == kept


@pytest.mark.parametrize(
    ("field", "value"), [("device", "nvidia-h100"), ("torch", "1.0"), ("threads", 64)]
)
def test_a_table_of_elsewhere_is_refused_by_name(model, own, tmp_path, timed, field, value):
    origin = clock_for("cpu").origin
    rewrite(own, **{field: value})
    before = own.read_text()
    with pytest.raises(UserError) as refusal:
        experiment(model, f"table={own}").run(tmp_path / "run")
    sentence = str(refusal.value)
    assert sentence.startswith(f"{own} was measured with {field}={value!r}")
    assert f"here it is {getattr(origin, field)!r}" in sentence
    assert timed.subjects == 0 and own.read_text() == before


DAMAGE = {
    "cut off at a row": (lambda text: text[: text[:-1].rindex("\n") + 1], "is truncated"),
    "cut off within a row": (lambda text: text[:-9], "is truncated"),
    "empty": (lambda text: "", "is not a cost table"),
    "another file": (lambda text: "a,b\n1,2\n", "is not a cost table"),
    "negative": (
        lambda text: text.replace(text.splitlines()[4].split(",")[-3], "-1e-05"),
        r"line \d+: .*seconds=-1e-05.*measure it again",
    ),
    "not a number": (
        lambda text: text.replace(text.splitlines()[4].split(",")[-3], "nan"),
        r"line \d+: .*seconds=nan",
    ),
    "words": (
        lambda text: text.replace(text.splitlines()[4].split(",")[-3], "fast"),
        r"line \d+: cannot read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_refused_and_kept(model, own, tmp_path, timed, damage):
    change, words = DAMAGE[damage]
    own.write_text(change(own.read_text()))
    before = own.read_bytes()
    with pytest.raises(UserError, match=f"own.csv.*{words}"):
        experiment(model, f"table={own}").run(tmp_path / "run")
    assert timed.subjects == 0 and own.read_bytes() == before


# --- its parts ---


def test_sizes_beyond_the_memory_are_skipped_and_counted(finished, model, tmp_path, monkeypatch):
    monkeypatch.setattr(CpuClock, "free_memory", lambda clock: 20e3)
    path = tmp_path / "part.csv"
    result = experiment(model, f"table={path}").run(tmp_path / "run")
    found = {row.key for row in MeasuredTable.load(path)}
    everything = {row.key for row in MeasuredTable.load(finished.summary["table"])}
    assert found < everything and len(found) == result.summary["rows"] > 0
    assert result.summary["rows.skipped"] >= len(everything - found)
    lost = {key.block for key in everything} - {key.block for key in found}
    assert lost == {"ffn(h=32,i=64)"}  # 24.7 KB of weights; others lack room for many tokens


@pytest.mark.parametrize(
    ("mode", "device", "found"),
    [
        ("auto", "cpu", "eager"),
        ("auto", "cuda:1", "graph"),
        ("eager", "cuda", "eager"),
        ("compiled", "cpu", "compiled"),
    ],
)
def test_the_mode_follows_the_device(mode, device, found):
    config = ProfileConfig(mode=mode)
    assert make_clock(config, device).mode == found


def test_graphs_need_a_gpu(model, tmp_path):
    with pytest.raises(UserError, match="mode=graph needs a CUDA device"):
        experiment(model, "mode=graph").run(tmp_path / "run")


def test_a_forced_table_of_elsewhere_is_not_written_to(own):
    rewrite(own, device="nvidia-h100")
    config = ProfileConfig(table=str(own))
    table = open_table(config, clock_for("cpu"), force=True)
    assert table.path is None and table.origin.device == "nvidia-h100" and len(table) > 0
    rewrite(own, device=clock_for("cpu").origin.device)
    assert open_table(config, clock_for("cpu"), force=True).path == own


def test_interpolation_errors_are_told_by_axis():
    def held(axis: str, error: float, whole: bool = False) -> Held:
        key = RowKey("ffn(h=8,i=8)", "prefill", 1, 1, "fp32", "eager")
        return Held(key, axis, whole, 1.0, 1.0 + error)

    axes = {"intermediate": 0.1, "kv_heads": -0.2, "length": 0.6, "batch": 0.5}
    found = [held(axis, error) for axis, error in axes.items()]
    check = CrossValidation((*found, held("length", 9.0, whole=True)))
    errors = interpolation_errors(check)
    assert errors["interpolation.error.mean"] == pytest.approx(0.3)
    assert errors["interpolation.error.batch"] == pytest.approx(0.5)
    assert math.isnan(CrossValidation(()).mean)
    assert set(interpolation_errors(CrossValidation(())).values()) == {None}


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (None, None),
        ({"commit": "abc", "dirty": False}, "abc"),
        ({"commit": "abc", "dirty": True}, "abc-dirty"),
    ],
)
def test_the_commit_says_where_the_tree_had_changes(monkeypatch, state, text):
    monkeypatch.setattr(task, "git_state", lambda: state)
    assert task.commit() == text


def test_encoders_are_profiled_by_image(tmp_path):
    settings = ["model=vit-small", "workload.tokens=[4,9]", "workload.batches=[1,2]"]
    result = adaptive.load(
        "profile", *settings, *SETTINGS[:4], f"table={tmp_path / 'vit.csv'}"
    ).run(tmp_path / "run")
    table = MeasuredTable.load(tmp_path / "vit.csv")
    sizes = [(batch, tokens) for batch in (1, 2) for tokens in (4, 9)]
    work = {  # blocks; pixels of the stem; what depends on the number of tokens alone
        "vit_block": set(sizes),
        "conv2d": {(batch, 256 * tokens) for batch, tokens in sizes},
        **dict.fromkeys(("norm", "embedding"), {(batch * tokens, 1) for batch, tokens in sizes}),
    }
    found = {(row.key.block.split("(")[0], row.key.batch, row.key.length) for row in table}
    assert found == {(kind, *size) for kind, sizes in work.items() for size in sizes}
    assert {row.key.phase for row in table} == {"prefill"}
    assert result.summary["rows"] == 16
    assert result.summary["interpolation.error.mean"] is None  # no point between others


@pytest.mark.slow
def test_the_zoos_model_by_its_name(tmp_path):
    narrow = ["workload.batches=[1]", "workload.prefill_batches=[1]", "variants.linear=false"]
    result = adaptive.load(
        "profile", "model=zoo:llama-tiny", *SETTINGS, *narrow, f"table={tmp_path / 'own.csv'}"
    ).run(tmp_path / "run")
    assert result.summary["rows"] > 30
