from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import toy
from browser import Browser, chromium, started

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.run import RunDir
from adaptive.core.run.lock import locked

OFFSETS = (1, 3)
ITEMS = (2, 9, 10)


def run_toy(directory: Path, *overrides: str) -> None:
    adaptive.load("toy", *overrides, config_dir=str(toy.RECIPES)).run(directory)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Runs of two settings, one that failed, and one that never began."""
    toy.register()
    home = tmp_path_factory.mktemp("sweep")
    for items in ITEMS:
        for offset in OFFSETS:
            run_toy(home / f"items={items},offset={offset}", f"items={items}", f"offset={offset}")
    with pytest.raises(UserError):
        run_toy(home / "fail=user,items=5", "items=5", "fail=user")
    RunDir(home / "items=0").status("failed", None, "items=0 must be at least 1")
    return home


@pytest.fixture
def sweep(made, tmp_path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "sweep"))


def collect(runs: Path, *overrides: str) -> Path:
    """Directory of a finished run of the task."""
    home = runs.parent / "collected"
    adaptive.load("collect", f"runs={runs}", *overrides).run(home)
    return home


def summary(home: Path) -> dict:
    return json.loads((home / "summary.json").read_text())


def table(home: Path) -> list[dict[str, str]]:
    with (home / "artifacts" / "collect" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_all_runs_are_in_the_table_in_the_order_of_their_numbers(sweep):
    rows = table(collect(sweep))
    names = [f"items={items},offset={offset}" for items in ITEMS for offset in OFFSETS]
    assert [Path(row["run"]).name for row in rows] == ["fail=user,items=5", "items=0", *names]
    assert [row["state"] for row in rows] == ["failed"] * 2 + ["done"] * 6
    assert list(rows[0])[:5] == ["run", "state", "items", "offset", "fail"]  # of settings: those
    # that differ, not the seed
    assert [row["items"] for row in rows[2:]] == ["2", "2", "9", "9", "10", "10"]
    assert rows[0]["items"] == "5" and rows[0]["toy.sum"] == ""
    assert rows[0]["error"].startswith("offset is not to my taste")
    assert rows[1]["error"] == "items=0 must be at least 1"
    done = json.loads((sweep / names[0] / "summary.json").read_text())
    assert float(rows[2]["toy.sum"]) == done["toy.sum"]


def test_the_frontier_is_of_what_the_task_trades(sweep):
    found = summary(collect(sweep))
    assert (found["runs"], found["runs.done"], found["runs.failed"]) == (8, 6, 2)
    assert (found["frontier.x"], found["frontier.y"]) == ("items", "toy.sum")
    # More of the sum is better: those of the larger offset.
    points = [found[f"frontier.{i}.run"] for i in range(found["frontier.points"])]
    assert [Path(p).name for p in points] == [f"items={items},offset=3" for items in ITEMS]
    assert [found[f"frontier.{i}.x"] for i in range(3)] == [2, 9, 10]


@pytest.mark.parametrize(
    ("asked", "points"),
    [
        (["y_best=least"], ["items=2,offset=1"]),
        (["x=toy.sum", "y=items", "x_best=most", "y_best=most"], ["items=10,offset=3"]),
        (["x=toy.sum", "y=toy.noise"], 1),
    ],
)
def test_another_frontier_may_be_asked_for(sweep, asked, points):
    found = summary(collect(sweep, *asked))
    names = [Path(found[f"frontier.{i}.run"]).name for i in range(found["frontier.points"])]
    assert len(names) == points if isinstance(points, int) else names == points


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_runs_that_are_not_done_are_listed(sweep, capfd):
    killed, at_work = sweep / "items=2,offset=1", sweep / "items=2,offset=3"
    for run in (killed, at_work):
        edit(run / "status.json", state="running", stage="add")
        (run / "summary.json").unlink()
    with locked(at_work):
        found = summary(home := collect(sweep))
    counts = {state: found[f"runs.{state}"] for state in ("done", "failed", "running")}
    assert counts == {"done": 4, "failed": 2, "running": 1} and found["runs.unfinished"] == 1
    states = {Path(row["run"]).name: row["state"] for row in table(home)}
    assert states[killed.name] == "unfinished" and states[at_work.name] == "running"
    err = capfd.readouterr().err
    assert f"[collect] unfinished at add: {killed}\n" in err
    assert f"failed: {sweep / 'items=0'}: items=0 must be at least 1" in err
    page = (home / "report.html").read_text()
    assert "Not done" in page and "offset is not to my taste" in page


def test_runs_of_another_configuration_are_named_and_not_mixed(sweep, capfd):
    """The recipe's seed was changed between two launches: no override says so."""
    stranger = sweep / "items=9,offset=1"
    config = (stranger / "config.yaml").read_text()
    (stranger / "config.yaml").write_text(config.replace("seed: 0", "seed: 8"))
    found = summary(home := collect(sweep))
    assert found["left_out.configuration"] == 1 and found["runs.done"] == 5
    assert stranger.name not in {Path(row["run"]).name for row in table(home)}
    err = capfd.readouterr().err
    assert f"left out, of another configuration: {stranger} (seed=8, others 0)" in err
    assert "seed=8, others 0" in (home / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": {"torch": "cuda", "name": "NVIDIA H100"}}, "(device=NVIDIA H100, others "),
        ({"version": "0.0.1"}, "(version=0.0.1, others "),
        ({"device": None}, None),
        ({"device": {"torch": "cuda"}, "version": None}, None),
    ],
)
def test_runs_of_another_device_or_version_are_named_and_not_mixed(sweep, capfd, change, words):
    stranger = sweep / "items=9,offset=1"
    edit(stranger / "run.json", **change)
    failed = sweep / "fail=user,items=5"  # has measured nothing that could be mixed
    edit(failed / "run.json", **change)
    found = summary(home := collect(sweep))
    told = f"left out, of another configuration: {stranger} {words}" in capfd.readouterr().err
    out = words is not None
    assert told == out and found["left_out.configuration"] == out
    names = {Path(row["run"]).name for row in table(home)}
    assert (stranger.name not in names) == out and failed.name in names


def test_runs_of_another_recipe_are_named_and_not_mixed(sweep):
    other = sweep / "other"
    shutil.copytree(sweep / "items=2,offset=1", other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("name: toy", "name: tidy"))
    with pytest.raises(UserError, match=r"several recipes.*tidy \(1\), toy \(7\).*recipe=NAME"):
        collect(sweep)
    found = summary(collect(sweep, "recipe=toy"))
    assert found["left_out.recipe"] == 1 and found["runs.done"] == 6
    with pytest.raises(UserError, match="recipe=toyy: .* holds none of it, but of tidy"):
        collect(sweep, "recipe=toyy")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["runs=''"], "runs is empty"),
        (["runs=nowhere"], "runs=nowhere is no directory"),
        (["x=toy.summ"], "x=toy.summ: no run has such a number, choose one of items, toy.noise"),
        (["x_best=many"], "x_best='many' is unknown"),
    ],
)
def test_mistakes_are_a_sentence(sweep, overrides, words):
    with pytest.raises(UserError, match=words):
        collect(sweep, *overrides)


def test_an_empty_directory_is_a_mistake(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="holds no runs"):
        collect(tmp_path / "runs")


def test_collecting_again_sees_what_has_changed(sweep):
    assert summary(collect(sweep))["runs"] == 8
    shutil.rmtree(sweep / "items=2,offset=1")
    assert summary(collect(sweep))["runs"] == 7


def test_what_was_collected_before_is_no_run_of_the_sweep(sweep):
    adaptive.load("collect", f"runs={sweep}").run(sweep / "collected")
    adaptive.load("collect", f"runs={sweep}").run(sweep / "again")
    assert summary(sweep / "again")["runs"] == 8


def test_the_page_links_to_the_pages_of_the_runs_and_to_the_table(sweep):
    home = collect(sweep)
    page = (home / "report.html").read_text()
    targets = [unquote(link) for link in re.findall(r'href="(\.\.?/[^"]+)"', page)]
    assert len(targets) >= 8 + 1
    assert all((home / target).exists() for target in targets)
    assert sum(target.endswith("report.html") for target in targets) == 6


def test_a_long_name_leaves_room_for_the_table(sweep):
    long = sweep / f"items=2,{'more=1,' * 14}-0a1b2c3d"
    (sweep / "items=2,offset=1").rename(long)
    page = (collect(sweep) / "report.html").read_text()
    assert re.search(r">items=2,more=1,[^<]*…0a1b2c3d</a>", page)
    assert f">{long.name}</a>" not in page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started(chromium()) as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_pointing_at_a_run_tells_its_settings(browser, sweep, width):
    home = collect(sweep)
    browser.open(home / "report.html", width=width)
    assert browser.errors == []
    x, y = browser.evaluate("""(() => { const spot = [...document.querySelectorAll('.spots > *')]
        .find((one) => one.getAttribute('aria-label').includes('items: 9')
            && one.getBoundingClientRect().width > 0);
        spot.scrollIntoView({block: 'center'});
        const at = spot.getBoundingClientRect();
        return [at.left + at.width / 2, at.top + at.height / 2]; })()""")
    browser.point_at(x, y)
    told = browser.evaluate("document.querySelector('.tip').textContent")
    assert told.startswith("frontier\nitems: 9") and "\noffset: 3.0\n" in told
    assert told.endswith("items=9,offset=3")
