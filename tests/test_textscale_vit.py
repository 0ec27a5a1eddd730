"""The page on the text network on a ViT says what its results say."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

# Installed as a part of adaptive, which the type checker does not know.
from adaptive.experiments import textscale_vit as script  # pyrefly: ignore[missing-import]


def prior(covered: float, ninth: float) -> dict:
    return {
        "covered": {"1": 1.0, "0.25": covered},
        "all_words": {"median": ninth / 2, "p90": ninth},
    }


@pytest.fixture
def record():
    names = ["nano", "small", "plain ViT", "vit, 1 of the tokens"]
    names += [f"vit, {s:g} of the tokens, {p}" for s in script.SHARES[1:] for p in script.PRIORS]
    rows = {
        name: {"input": "640x640", "ms": 10.0 * 2**n, "spread": 0.01, "rounds": 5, "gmac": n}
        for n, name in enumerate(names)
    }
    run = {
        "command": "cover this",
        "commit": "1234567890",
        "date": "2026-01-02",
        "summary": {"words": 46, "images": 10, "input": "64x64"},
        "shares": [1.0, 0.25],
        "cover": {"patch": 16, "max_patch": 64, "legible": 12.0, "whole": 0.9},
        "priors": {"oracle": prior(0.75, 0.125), "gain": prior(0.5, 0.7)},
    }
    network = {"recipe": "r", "size": "nano", "steps": 7, "batch": 8, "side": 64, "seconds": 120}
    network["images"] = {"data.scenes.images": 3}
    return {
        "command": "measure this",
        "date": "2026-01-03",
        "commit": "abcdef012345",
        "environment": {"device": {"name": "a CPU"}},
        "threads": 1,
        "times": {"640x640": rows},
        "coverage": {"cover16": run},
        "networks": {"runs/a": network},
    }


def test_a_page_says_what_the_results_say(record):
    text = script.page(record)
    assert "a CPU, 2026-01-03, commit `abcdef0`" in text and "F is not measured yet" in text
    assert "| oracle | 100.0 | 75.0 | 6.2 | 12.5 |" in text
    assert "46 words of 10 ICDAR 2015 validation photographs" in text
    assert "| small | 640x640 | 1.0 | 20 | 1% |" in text
    assert "12 % of the tokens show every word" in text and "pixel gain takes 70 %" in text
    assert "`runs/a` saw little: `r` with size nano on 3 of scenes, 7 steps of 8" in text
    assert "2 minutes. A trained one" in text  # nothing tells where
    quarter = 10.0 * 2**6  # of gain
    assert f"25% of the tokens take {quarter / 80:.0%} of the full grid's time, " in text
    assert "all of them take 4.00 times `small`'s" in text


def test_the_page_is_that_of_the_results():
    assert script.PAGE.read_text(encoding="utf-8") == script.page(script.read(script.RESULTS))


def test_results_are_written_and_a_missing_one_is_told(record, tmp_path, monkeypatch):
    out = ["--results", str(tmp_path / "r.json"), "--out", str(tmp_path / "page.md")]
    with pytest.raises(SystemExit, match=r"error: cannot read .*r\.json"):
        script.main(out)
    with pytest.raises(SystemExit, match=r"error: cannot read .*run\.json"):
        script.main([*out, "--coverage", str(tmp_path / "nowhere")])
    (tmp_path / "r.json").write_text(json.dumps(record))
    script.main(out)
    assert (tmp_path / "page.md").read_text() == script.page(record)


@pytest.fixture
def runs(tmp_path, record, monkeypatch):
    """A finished run of quad_textprior and one of training, in the current directory."""
    monkeypatch.chdir(tmp_path)
    copied = record["coverage"]["cover16"]
    about = {"command": "x", "started": "2026-01-02T03:04", "git": None, "device": {"name": "H100"}}
    cover = {"cover": copied["cover"], "shares": copied["shares"]}
    net = {"name": "r", "net": {"size": "nano"}, "train": {"steps": 7, "batch": 8}}
    for name, config, summary in (
        ("cover16", cover, copied["summary"]),
        ("net", net | {"sample": {"side": 64}}, {"train.seconds": 120, "data.scenes.images": 3}),
    ):
        (tmp_path / name / "artifacts/cover").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(about))
        (tmp_path / name / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "cover16/artifacts/cover/table.json").write_text(json.dumps(copied["priors"]))


@pytest.mark.usefixtures("runs")
def test_times_stay_with_the_settings_that_they_were_measured_with(record, tmp_path, monkeypatch):
    asked = []

    def times(*settings):
        asked.append(settings)
        return record["times"]

    monkeypatch.setattr(script, "times", times)
    given = ["--coverage", "cover16", "--network", "net", "--results", "r.json", "--out", "page.md"]
    timing = ["--device", "cpu", "--threads", "2", "--seconds", "7.5"]
    for _ in range(2):  # the second start has nothing left to time
        script.main([*given, *timing])
    assert asked == [("cpu", 2, 7.5)]
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["threads"] == 2
    assert kept["command"].endswith("--coverage cover16 --network net " + " ".join(timing))
    text = (tmp_path / "page.md").read_text()
    assert "medians in turns, 2 threads; " in text
    assert "7 steps of 8 samples of 64 pixels, 2 minutes on H100. " in text
    for other in (["--threads", "1"], ["--seconds", "8"], ["--device", "auto"]):
        with pytest.raises(SystemExit, match="is of .*move it away"):
            script.main([*given, *timing, *other])
    assert json.loads((tmp_path / "r.json").read_text()) == kept


@pytest.mark.usefixtures("runs")
def test_a_start_that_times_nothing_leaves_the_threads_alone(record, tmp_path, monkeypatch):
    """Even where it goes on with a record whose command named none."""
    monkeypatch.setattr(script, "started", lambda *_: record | {"threads": 1})
    given = ["--coverage", "cover16", "--results", "r.json", "--out", "page.md", "--threads", "2"]
    script.main(given)
    assert json.loads((tmp_path / "r.json").read_text())["threads"] == 1
    assert "medians in turns, 1 thread; " in (tmp_path / "page.md").read_text()


def test_networks_are_timed_in_turns(monkeypatch):
    """With stand-ins of one layer: that of the ViT gets its share and its prior."""
    asked = []

    class Net(nn.Module):
        multiple = 64

        def __init__(self, size):
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1, bias=False)

        def spend(self, share, prior):
            asked.append((share, prior))

        def forward(self, image_B3HW, share):
            return self.layer(image_B3HW)

    monkeypatch.setattr("adaptive.textscale.network.net.TextNet", Net)
    monkeypatch.setattr(script, "INPUTS", ((96, 100),))
    threads = torch.get_num_threads()
    rows = script.times("cpu", 1, seconds=0.1)["100x96"]
    torch.set_num_threads(threads)
    assert asked == [(s, p) for s in script.SHARES[1:] for p in script.PRIORS]
    assert len(rows) == 10 and all(row["input"] == "128x128" for row in rows.values())
    assert rows["small"]["gmac"] == pytest.approx(3 * 128**2 / 1e9) and rows["nano"]["ms"] > 0
