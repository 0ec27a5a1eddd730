"""The task `frontiers` on runs of the toy."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
import toy
from browser import chromium, started

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.frontiers import PartConfig, ReferenceConfig
from adaptive.core.run import Experiment, RunDir, StageContext

# The sum of more numbers is larger and costs more; of 8 the reference is one.
RECIPE = f"""# @package _global_
defaults:
  - override /task: frontiers
name: both
config_dir: {toy.RECIPES}
parts:
  own:
    exp: toy
    over: items
    values: [2, 6]
    set: {{offset: 0.0}}
    reference: {{set: {{items: 8}}}}
  named:
    exp: toy
    over: items
    values: [3, 4]
    reference: {{cost: items, quality: toy.sum}}
"""


@pytest.fixture
def home(tmp_path) -> Path:
    toy.register()
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "both.yaml").write_text(RECIPE)
    return tmp_path


def load(home: Path, *overrides: str):
    return adaptive.load("both", *overrides, config_dir=str(home))


def run(home: Path, *overrides: str) -> dict:
    return load(home, *overrides).run(home / "run").summary


def child(home: Path, part: str, name: str) -> dict:
    return json.loads((home / "run" / "runs" / part / name / "summary.json").read_text())


def test_each_part_is_held_against_its_reference(home):
    found = run(home)
    sums = {name: child(home, "own", name)["toy.sum"] for name in ("items=2", "items=6")}
    full = child(home, "own", "reference")
    assert full["items"] == 8
    assert (found["own.points"], found["own.runs"], found["own.runs.failed"]) == (2, 3, 0)
    assert (found["own.cost"], found["own.quality"]) == ("items", "toy.sum")
    assert found["own.reference.quality"] == full["toy.sum"]
    assert [found[f"own.{i}.share"] for i in range(2)] == [0.25, 0.75]
    assert found["own.0.kept"] == pytest.approx(sums["items=2"] / full["toy.sum"])
    assert found["own.at_half"] == pytest.approx(sum(sums.values()) / 2)  # half way between them
    assert found["own.at_half.how"] == "interpolated between 25.0% and 75.0%"
    assert found["named.at_half"] is None  # every run is its own reference
    assert found["named.at_half.how"].startswith("not reached")


def test_the_page_answers_and_links_to_every_run(home):
    run(home)
    page = (home / "run" / "report.html").read_text()
    targets = [unquote(link) for link in re.findall(r'href="(\.\.?/[^"]+)"', page)]
    assert len(targets) == 5 and all((home / "run" / target).exists() for target in targets)
    assert page.count('<div class="panels">') == 1 and "interpolated between 25.0%" in page
    notes = re.findall(r"<title>(items=2\n[^<]*)</title>", page)
    assert len(notes) == 1 and "25.0 % of the cost" in notes[0]


@pytest.mark.slow
def test_panels_stand_beside_each_other_or_below(home):
    run(home)
    page = home / "run" / "report.html"
    with started(chromium()) as browser:
        for width, rows in ((1200, 1), (390, 2)):
            browser.open(page, width=width)
            assert browser.errors == []
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            tops = browser.evaluate(
                "[...document.querySelectorAll('.panels > div')]"
                ".map((one) => one.getBoundingClientRect().top)"
            )
            assert len(tops) == 2 and len(set(tops)) == rows


def test_again_nothing_is_done(home, capfd):
    first = run(home)
    capfd.readouterr()
    assert run(home) == first
    words = capfd.readouterr().err.splitlines()
    names = ("runs_own", "runs_named", "report", "complete")
    assert words == [f"[{name}] done before, kept" for name in names]


@pytest.mark.slow
def test_a_changed_list_of_values_keeps_the_runs_that_it_still_has(home, monkeypatch):
    run(home)
    monkeypatch.setenv("TOY_TALLY", str(home / "tally"))
    found = run(home, "parts.own.values=[2,5]")
    assert (found["own.0.budget"], found["own.1.budget"]) == ("items=2", "items=5")
    drawn = (home / "tally").read_text().splitlines()
    assert len(drawn) == 5 and all("items=5" in path for path in drawn)


def test_runs_share_the_stages_that_their_budget_does_not_touch(home, monkeypatch):
    """Drawing depends on the items alone: runs of other offsets take the draws over."""
    monkeypatch.setenv("TOY_TALLY", str(home / "tally"))
    changes = ["parts.own.over=offset", "parts.own.values=[1,2,3]", "~parts.own.set.offset"]
    changes += ["~parts.own.reference.set.items", "+parts.own.reference.set.offset=9"]
    run(home, *changes, "parts.named=null")
    assert len((home / "tally").read_text().splitlines()) == 12
    sums = [child(home, "own", f"offset={offset}")["toy.sum"] for offset in (1, 2, 3)]
    assert sums == pytest.approx([sums[0], sums[0] + 1, sums[0] + 2])


def test_a_part_is_left_out_by_one_override(home):
    found = run(home, "parts.named=null")
    assert found["own.points"] == 2 and not any(key.startswith("named") for key in found)


@pytest.mark.slow
def test_several_runs_may_share_their_runs(home):
    shared = f"runs={home / 'shared'}"
    run(home, shared)
    again = load(home, shared).run(home / "other").summary
    (directory,) = (home / "shared" / "own").glob("items=2-*")
    assert again["own.0.run"] == str(directory)
    assert json.loads((directory / "run.json").read_text())["attempts"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("change", ["parts.own.set.offset=5.0", "seed=3", "device=auto"])
def test_runs_that_are_shared_differ_in_more_than_their_budget(home, change):
    """A second frontier with other settings has runs of its own, whatever their names."""
    shared = [f"runs={home / 'shared'}", "parts.named=null"]
    first = run(home, *shared)
    results = {path: path.read_text() for path in (home / "shared").rglob("summary.json")}
    second = load(home, *shared, change).run(home / "other").summary
    assert len(results) == 3 and all(path.read_text() == text for path, text in results.items())
    assert second["own.0.run"] != first["own.0.run"]
    assert json.loads((Path(first["own.0.run"]) / "status.json").read_text())["state"] == "done"
    if change != "device=auto":
        assert second["own.0.quality"] != first["own.0.quality"]
    assert (home / "run" / "report.html").read_text().count("shared/own/items") >= 2


def test_a_directory_of_another_experiment_is_left_as_it_is(home):
    recipe = (toy.RECIPES / "exp" / "toy.yaml").read_text()
    (home / "exp" / "other.yaml").write_text(recipe.replace("name: toy", "name: other"))
    over = ["parts.own.over=offset", "~parts.own.set.offset", "parts.own.reference.set=null"]
    run(home, *over, "parts.own.values=[1,2]", "parts.named=null")
    files = {path: path.read_bytes() for path in (home / "run" / "runs").rglob("*.json")}
    other = [*over, "parts.own.exp=other", f"config_dir={home}", "+parts.own.set.items=5"]
    with pytest.raises(UserError, match=r"1 of 2 runs failed.*holds a run of 'toy' .*'other'"):
        run(home, *other, "parts.own.values=[3,1]", "parts.named=null")
    assert all(path.read_bytes() == content for path, content in files.items())


@pytest.mark.slow
def test_what_was_made_on_another_device_is_not_kept(home, monkeypatch):
    run(home, "parts.named=null")
    elsewhere = home / "run" / "runs" / "own" / "items=2"
    record = json.loads((elsewhere / "run.json").read_text())
    record["device"]["name"] = "Abacus 9"
    (elsewhere / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("TOY_TALLY", str(home / "tally"))
    with pytest.raises(UserError, match="1 of 3 runs failed: own/items=2: .* was made on Abacus 9"):
        run(home, "parts.named=null", "parts.own.set.offset=1.0")
    assert json.loads((elsewhere / "run.json").read_text()) == record
    assert json.loads((elsewhere / "status.json").read_text())["state"] == "done"
    assert not (home / "tally").exists()
    part = json.loads((home / "run" / "artifacts" / "runs_own" / "part.json").read_text())
    assert [point["name"] for point in part["curve"]["points"]] == ["items=6"]
    shutil.rmtree(elsewhere)
    assert run(home, "parts.named=null", "parts.own.set.offset=1.0")["own.points"] == 2


def test_a_run_counts_as_it_ended(home, monkeypatch):
    """What another launch does to a directory afterwards changes nothing."""
    ended = Experiment.run

    def then_begun_anew(self, directory, **settings):
        result = ended(self, directory, **settings)
        if directory.name == "items=2":
            RunDir(directory).unpublish()
        return result

    monkeypatch.setattr(Experiment, "run", then_begun_anew)
    config = load(home, "parts.named=null")
    found = ended(config, home / "run").summary
    assert (found["own.points"], found["own.runs.unmeasured"]) == (2, 0)


def test_a_run_without_the_numbers_is_told(home, capfd, monkeypatch):
    whole = StageContext.summary

    def without(self, values=None, /, **more):
        if "items=2" in str(self.dir):
            values = {key: None for key in values or {}}
        whole(self, values, **more)

    monkeypatch.setattr(StageContext, "summary", without)
    found = run(home, "parts.named=null")
    assert (found["own.points"], found["own.runs.unmeasured"]) == (1, 1)
    assert "items=2 has not measured both items and toy.sum" in capfd.readouterr().err
    page = (home / "run" / "report.html").read_text()
    assert "own/items=2/report.html" in unquote(page) and "have not measured both numbers" in page


def test_a_failed_run_leaves_the_others_and_the_page_and_is_tried_again(home, capfd):
    fails = ["parts.own.over=fail", "parts.own.values=['',user,bug]", "parts.named=null"]
    fails += ["parts.own.reference.set.items=20"]
    with pytest.raises(UserError, match=r"2 of 4 runs failed: own/fail=user: offset is not to my "):
        run(home, *fails)
    assert "ZeroDivisionError: one over nothing" in capfd.readouterr().err
    status = json.loads((home / "run" / "status.json").read_text())
    assert status["state"] == "failed" and "hydra.run.dir=" in status["error"]
    page = (home / "run" / "artifacts" / "report" / "report.html").read_text()
    assert "Not done" in page and "offset is not to my taste" in page
    with pytest.raises(UserError, match="2 of 4 runs failed"):
        run(home, *fails)
    words = capfd.readouterr().err
    assert "[runs_own] 2 of its 4 runs failed, runs again" in words
    assert words.count("[draw] done before, kept") == 4
    assert run(home, "parts.named=null")["own.points"] == 2


def test_a_run_that_cannot_begin_says_why_in_its_directory(home, monkeypatch):
    def refuse(_stages, directory, *_, **__):
        if directory.name == "items=6":
            raise PermissionError(13, "Permission denied", "x")
        return []

    monkeypatch.setattr("adaptive.core.frontiers.children.take_stages", refuse)
    with pytest.raises(UserError, match="1 of 3 runs failed: own/items=6: PermissionError"):
        run(home, "parts.named=null")
    told = home / "run" / "runs" / "own" / "items=6" / "status.json"
    status = json.loads(told.read_text())
    assert status["state"] == "failed" and status["error"].startswith("PermissionError: ")
    monkeypatch.undo()
    assert run(home, "parts.named=null")["own.points"] == 2
    assert json.loads(told.read_text())["state"] == "done"


def test_without_its_reference_a_part_has_no_half(home):
    none = run(home, "parts.own.reference.set=null", "parts.named=null")
    assert none["own.at_half"] is None and none["own.points"] == 2
    assert none["own.at_half.how"] == "parts.own.reference names none"
    assert none["own.0.share"] is None and "<figure>" in (home / "run" / "report.html").read_text()
    with pytest.raises(UserError, match="1 of 3 runs failed: own/reference"):
        run(home, "+parts.own.reference.set.fail=user", "parts.named=null")
    part = json.loads((home / "run" / "artifacts" / "runs_own" / "part.json").read_text())
    assert part["curve"]["half"]["how"] == "the run of the reference failed"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["+parts.own.cost=itmes"],
            "parts.own.cost=itmes: no run has such a number, choose one of",
        ),
        (["parts.named.reference.quality=x"], "parts.named.reference.quality=x: no run has such"),
    ],
)
def test_a_number_that_there_is_not_is_told_after_one_run(home, overrides, words):
    with pytest.raises(UserError, match=words):
        run(home, *overrides)
    part = words.split(".")[1]
    assert len(list((home / "run" / "runs" / part).iterdir())) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["parts.own.exp=tooy"], "parts.own: unknown recipe 'tooy', choose one of"),
        (["parts.own.over=itms"], r"parts.own: unknown setting 'itms'.*leave out: parts.own=null"),
        (["parts.own.values=[2,0]"], "parts.own: items=0 must be at least 1"),
        (
            ["parts.own.values=[0]", "parts.named.exp=tooy"],
            r"parts.own: items=0 .*; parts.named: .*parts.own=null parts.named=null",
        ),
    ],
)
def test_what_cannot_run_is_told_before_anything_is_computed(home, overrides, words):
    with pytest.raises(UserError, match=words):
        run(home, *overrides)
    assert not (home / "run" / "runs").exists()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (PartConfig(), "p.exp is empty"),
        (PartConfig("toy"), "p.over is empty"),
        (PartConfig("toy", over="items"), "p.values is empty"),
        (PartConfig("toy", over="items", values=[1, "1"]), "p.values has 1 twice"),
        (PartConfig("toy", {"items": 3}, "items", [1]), "p.set.items is what p.over changes"),
        (PartConfig("toy", {"a": {"b": 1}}, "a.b", [1]), "p.set.a.b is what p.over changes"),
        (PartConfig("toy", {"a": {"b": 1}}, "a", [None]), "p.set.a.b is what p.over changes"),
        (PartConfig("toy", {"a": {"b": 1}}, "a", [{"b": 2}]), "p.set.a.b is what p.over changes"),
        (PartConfig("toy", {"a": None}, "a.b", [1]), "p.set.a is what p.over changes"),
        (PartConfig("toy", {"~a": None}, "a.b", [1]), "p.set.~a is what p.over changes"),
        (PartConfig("toy", over="items", values=[1], cost_best="best"), "p.cost_best='best'"),
        (
            PartConfig("toy", over="items", values=[1], reference=ReferenceConfig(cost="x")),
            "p.reference.cost=x leaves the quality open",
        ),
        (
            PartConfig("toy", over="i", values=[1], reference=ReferenceConfig("x", "y", {})),
            "p.reference.set makes a run that nothing asks for",
        ),
    ],
)
def test_settings_that_mean_nothing(part, words):
    with pytest.raises(UserError, match=re.escape(words)):
        part.validate("p")


@pytest.mark.parametrize(
    "part",
    [
        PartConfig("toy", {"budget": {"memory": "1 GB"}}, "budget.latency", [1]),
        PartConfig("toy", {"budget": {"memory": "1 GB"}}, "budget", [{"latency": 1}]),
        PartConfig("toy", {"item": 1, "items_a": {"b": 1}}, "items", [1]),
        # A group's choice, and settings of what is chosen.
        PartConfig("toy", {"detector": "onnx"}, "detector.path", ["a"]),
        PartConfig("toy", {"detector": {"path": "a"}}, "detector", ["onnx", "net"]),
    ],
)
def test_settings_beside_those_that_differ(part):
    part.validate("p")


def test_parts_that_there_cannot_be(home):
    with pytest.raises(UserError, match="parts is empty"):
        load(home, "parts={own: null, named: null}")
    recipe = home / "exp" / "both.yaml"
    recipe.write_text(RECIPE.replace("  own:", "  o.n:"))
    with pytest.raises(UserError, match="parts.o.n: names of parts are of letters"):
        load(home)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(home, monkeypatch):
    """From the command line, where Hydra is at work around the runs' own recipes."""
    monkeypatch.setenv("TOY_TALLY", str(home / "tally"))
    command = [sys.executable, toy.__file__, "--config-dir", str(home), "+exp=both"]
    command += ["+parts.own.set.pause=0.1", "parts.named=null", f"hydra.run.dir={home / 'run'}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        begun = home / "run" / "runs" / "own" / "items=2" / "artifacts"
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    drawn = (home / "tally").read_text().splitlines()
    assert len(set(drawn)) == 8 + 2 + 6 and len(drawn) <= 8 + 2 + 6 + 1
    summary = json.loads((home / "run" / "summary.json").read_text())
    assert summary == run(home, "+parts.own.set.pause=0.1", "parts.named=null")
