"""The script that measures how much of the saved FLOPs is saved time."""

from __future__ import annotations

import json

import pytest

from adaptive.experiments.bench import vit_realisation as script

TINY = ["--vits", "vit_tiny_patch16_224", "--batch", "1", "--seconds", "0.1", "--device", "cpu"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "result.json"
    script.main([*TINY, "--priors", "gain", "--tokens", "49", "--out", str(path), "--commit", "ab"])
    return path


def test_numbers_follow_from_the_times(result):
    found = json.loads(result.read_text())
    (row,) = found["rows"]
    assert found["commit"] == "ab" and (found["mode"], found["batch"]) == ("eager", 1)
    assert (row["vit"], row["prior"], row["tokens"]) == ("vit_tiny_patch16_224", "gain", 49)
    assert set(row["seconds"]) == {script.MODEL, script.FULL, *script.PARTS}
    assert row["images_per_second"] == pytest.approx(1 / row["seconds"]["model"])
    assert row["realisation"] == pytest.approx(row["speedup"] / row["flop_ratio"])
    assert row["flop_ratio"] == pytest.approx(256 / 49, rel=0.2)
    assert sum(row["seconds"][part] for part in script.PARTS) < row["seconds"][script.FULL]


def test_what_is_known_is_not_measured_again(result, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        script, "bench", lambda vit, prior, tokens, _: asked.append((prior, tokens)) or []
    )
    priors = ["--priors", "gain", "centre", "--tokens", "49", "64"]
    script.main([*TINY, *priors, "--out", str(result)])
    assert asked == [("gain", [64]), ("centre", [49, 64])]


def test_the_page_shows_realisation_and_parts(result, capsys):
    script.main(["--page", "--out", str(result)])
    text = capsys.readouterr().out
    assert "commit ab (`python experiments/bench/vit_realisation.py --vits vit_tiny" in text
    assert text.count("| vit_tiny_patch16_224 | gain | 49 |") == 2
    assert "| prior | selection | gather and embedding | together |" in text


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--page"], "name it with --out"),
        ([*TINY, "--batch", "2"], "has another batch: move it away"),
        ([*TINY, "--tokens", "50"], "num_tokens=50 is not feasible"),
        (["--vits", "vit_enormous", "--device", "cpu"], "timm has no model 'vit_enormous'"),
    ],
)
def test_mistakes_get_one_sentence(result, arguments, words):
    out = [] if arguments == ["--page"] else ["--out", str(result)]
    with pytest.raises(SystemExit, match=words):
        script.main([*arguments, *out] if "vit_enormous" not in arguments else arguments)
