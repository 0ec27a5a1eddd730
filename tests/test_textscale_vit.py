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
