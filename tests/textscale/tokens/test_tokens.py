"""From photographs and a network to what each prior covers and finds, and the page."""

from __future__ import annotations

import json
import re

import cv2
import pytest
from tiny_text import Scenes, make_net
from tiny_vit_net import make_vit_net

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.data.icdar import format_words
from adaptive.textscale.network import save_net
from adaptive.textscale.tokens import stages
from adaptive.textscale.tokens.config import names_of

SMALL = ["shares=[1,0.5,0.3]", "sides=[96]", "device=cpu"]
SMALL += ["cover.patch=8", "cover.max_patch=32", "cover.legible=20"]


@pytest.fixture
def data(tmp_path):
    """Three scenes of 160 x 192 in ICDAR's form."""
    (tmp_path / "images").mkdir()
    for name, image_HW3, words in Scenes(3):
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image_HW3[..., ::-1])
        (tmp_path / f"images/gt_{name}.txt").write_text(format_words(words))
    return f"data.images={tmp_path / 'images'}"


def legends(page):
    """What the legends of the figures in a part of a page say, each once."""
    keys = [part.split("<defs>")[0] for part in page.split('-legend_1">')[1:]]
    return {text for key in keys for text in re.findall(r">([^<>]+)</text>", key)}


def test_what_is_covered_needs_no_network(data, tmp_path):
    result = adaptive.load("quad_textprior", data, *SMALL).run(tmp_path / "run")
    summary = result.summary
    assert summary["images"] == 3 and summary["words"] == 12 and summary["input"] == "192x160"
    for prior in ("oracle", "gain", "blur", "centre", "random"):
        shown = [summary[f"covered.{prior}.{share}"] for share in ("0.3", "0.5", "1")]
        assert shown == sorted(shown) and shown[-1] == 1
        assert summary["covered.oracle.0.3"] >= shown[0]
    assert summary["all_words.oracle.median"] < summary["all_words.random.median"] <= 1
    page = result.report.read_text()
    assert page.count("<figure>") == 2 and "Words found" not in page and "centre" in page
    assert "could not be read" not in page


def test_unreadable_photographs_are_counted_and_end_the_run_as_failed(data, tmp_path):
    for name in ("dark", "torn"):
        (tmp_path / f"images/{name}.png").write_bytes(b"no image")
        (tmp_path / f"images/gt_{name}.txt").write_text("")
    experiment = adaptive.load("quad_textprior", data, *SMALL, "priors=[gain]")
    told = r"2 photographs of data.images=.* left out: dark, torn; the numbers are of the others"
    for _ in range(2):  # a second start tells it again
        with pytest.raises(UserError, match=told):
            experiment.run(tmp_path / "run")
    page = (tmp_path / "run/artifacts/report/report.html").read_text()
    assert "were left out: 2 (dark, torn)." in page


def test_a_network_is_judged_at_each_share_by_each_prior(data, tmp_path):
    net, other = make_vit_net(), make_net()
    save_net(net, tmp_path / "net.safetensors")
    save_net(other, tmp_path / "other.safetensors")
    text = f"text(net='{tmp_path}/other.safetensors', side=96)"
    changes = [f"detector.path={tmp_path}/net.safetensors", "detector.threshold=0.05"]
    changes += [f"rival.path={tmp_path}/other.safetensors", "side=128"]
    changes += [f'priors=[oracle,gain,"{text}"]']
    result = adaptive.load("quad_textprior", data, *SMALL, *changes).run(tmp_path / "run")
    summary = result.summary
    assert summary["input"] == "128x128"  # 128 x 107, padded to patches of 32
    ways = {name.removesuffix(".f") for name in summary if name.endswith(".f")}
    chosen = {f"{prior}.{share}" for prior in ("oracle", "gain", "text") for share in (0.5, 0.3)}
    assert ways == {"full", "rival.96"} | chosen
    macs = [summary[f"{way}.gmac"] for way in ("gain.0.3", "gain.0.5", "full")]
    assert macs == sorted(macs) and macs[0] < macs[-1]
    # The look of the prior counts.
    more = summary["text.0.5.gmac"] - summary["gain.0.5.gmac"]
    assert more == pytest.approx(summary["prior.text.gmac"], rel=1e-6) and more > 0
    assert summary["full.megapixels"] == pytest.approx(128 * 128 / 1e6)
    page = result.report.read_text()
    assert "Words found" in page and page.count("<figure>") == 3
    # A curve of words found for each prior, named as those of words covered are.
    covered, found = (legends(part) for part in page.split("Words found</h2>"))
    assert covered == found == {"oracle", "gain", "text"}
    # Whoever knows the words has no price; all others have one.
    prices = {n: v for n, v in summary.items() if n.endswith((".gmac", ".ms", ".ms_per_image"))}
    left_out = {f"oracle.{share}.{k}" for share in (0.5, 0.3) for k in ("gmac", "ms_per_image")}
    left_out |= {"prior.oracle.ms", "prior.oracle.gmac"}
    assert {name for name, price in prices.items() if price is None} == left_out
    assert "so that its milliseconds and GMAC are left out" in page


def test_what_was_measured_before_a_stop_is_not_measured_again(data, tmp_path, monkeypatch):
    save_net(make_vit_net(), tmp_path / "net.safetensors")
    save_net(make_net(), tmp_path / "other.safetensors")
    changes = [f"detector.path={tmp_path}/net.safetensors", "side=96", "priors=[gain]"]
    changes += [f"rival.path={tmp_path}/other.safetensors", "sides=[96,128]"]
    experiment = adaptive.load("quad_textprior", data, *SMALL, *changes)
    calls: list[int] = []
    measure = stages.run_baseline

    def stopping(*arguments):
        """Once within the last row of each of the two stages: calls 3 and 6."""
        calls.append(1)
        if len(calls) in (3, 6):
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(stages, "run_baseline", stopping)
    run, kept = tmp_path / "run", {}
    for stage, rows in (("detect", {"full", "gain.0.5"}), ("rival", {"rival.96"})):
        with pytest.raises(KeyboardInterrupt):
            experiment.run(run)
        left = json.loads((run / f"artifacts/.{stage}.partial/table.json").read_text())
        assert set(left) == rows
        kept |= left
    summary = experiment.run(run).summary
    assert len(calls) == 5 + 2  # rows, and those that were cut short
    assert {n.removesuffix(".f") for n in summary if n.endswith(".f")} == {
        *kept,
        "gain.0.3",
        "rival.128",
    }
    assert all(summary[f"{n}.ms_per_image"] == row["ms_per_image"] for n, row in kept.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("shares=[0.5,0]", r"shares=\[0.5, 0.0\] must be shares of the grid"),
        ("priors=[]", "priors is empty"),
        ("cover.whole=0", "cover.whole=0.0 must lie above 0"),
        ("cover.legible=-1", "cover.legible=-1.0 must be above 0"),
        ("rival.path=a sides=[]", "sides is empty: name long sides for rival.path"),
        ("side=-1", "side=-1 must be a long side"),
        ("detector.kind=onnx", "detector.kind=onnx has no tokens"),
        ("data.images=''", "data.images is empty"),
    ],
)
def test_settings_that_mean_nothing(data, change, words):
    with pytest.raises(UserError, match=words):
        adaptive.load("quad_textprior", data, *change.split())


def test_priors_have_short_names_where_these_tell_them_apart():
    priors = ["gain", "text(net='a')", "centre(sigma=0.3)", "centre(sigma=0.5)", "gain * centre"]
    assert list(names_of(priors)) == ["gain", "text", *priors[2:]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["priors=[gian]"], "unknown prior 'gian'"),
        (["cover.max_patch=48"], "must be min_patch=16 times a power of two"),
        (["detector.path=nowhere"], "detector.path=nowhere: there are no weights"),
        (["detector.path=NET"], "has no choice of tokens: take one that has"),
    ],
)
def test_mistakes_that_a_run_tells(data, tmp_path, changes, words):
    save_net(make_net(), tmp_path / "net.safetensors")
    changes = [each.replace("NET", str(tmp_path / "net.safetensors")) for each in changes]
    with pytest.raises(UserError, match=words):
        adaptive.load("quad_textprior", data, "device=cpu", *changes).run(tmp_path / "run")
