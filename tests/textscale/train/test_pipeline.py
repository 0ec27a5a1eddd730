"""From annotated images to a trained network, its scores and its report."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny_vit_net  # noqa: F401 (registers tiny_tokens with timm)
import torch
from tiny_text import SIZE, Scenes, make_net

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.data.icdar import format_words
from adaptive.textscale.network import SIZES, load_net, save_net
from adaptive.textscale.train.stages import mined_weights

SMALL = ["train.steps=4", "train.batch=2", "train.warmup_steps=1", "train.validate_steps=2"]
SMALL += ["sample.side=64", "net.size=tiny", "data.workers=0", "device=cpu"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(SIZES._items, "tiny", SIZE)


@pytest.fixture
def data(tmp_path):
    """Folders ``train`` and ``valid`` in ICDAR's form."""
    for name, first in (("train", 0), ("valid", 50)):
        (tmp_path / name).mkdir()
        for sample, image_HW3, words in Scenes(4, first):
            cv2.imwrite(str(tmp_path / name / f"{sample}.png"), image_HW3[..., ::-1])
            (tmp_path / name / f"gt_{sample}.txt").write_text(format_words(words))
    return [
        f"data.root={tmp_path}",
        "data.train.rendered.images=train",
        "data.valid.images=valid",
    ]


def test_end_to_end(data, tmp_path, capsys):
    first = adaptive.load("textscale_pretrain", *data, *SMALL).run(tmp_path / "first")
    summary = first.summary
    assert summary["data.rendered.images"] == 4 and summary["data.valid.care_words"] == 16
    assert summary["train.steps"] == 4 and 0 <= summary["f"] <= 1
    assert {"precision", "recall", "scale_error", "net.params"} <= summary.keys()
    files = {path.name for path in (tmp_path / "first" / "artifacts" / "train").iterdir()}
    assert files == {"net.safetensors", "ema.safetensors", "manifest.json"}
    assert load_net(tmp_path / "first").size == SIZE
    kept, shipped = (load_net(tmp_path / "first" / "artifacts" / s) for s in ("train", "export"))
    for whole, half in zip(kept.parameters(), shipped.parameters(), strict=True):
        assert torch.equal(half, whole.half().float())
    assert 0 < summary["export.megabytes"] < 2 * summary["net.params"] * 1.2e-6
    page = first.report.read_text()
    assert "Maps" in page and page.count("<figure>") == 3

    start = [f"net.init={tmp_path / 'first'}", "~data.train.photographs"]
    tuned = adaptive.load("textscale_finetune", *data, *SMALL, *start)
    result = tuned.run(tmp_path / "second")
    assert result.summary["mine.words"] == 16 and result.summary["mine.missed"] <= 16
    missed = tmp_path / "second" / "artifacts" / "mine" / "missed.json"
    assert [len(each) for each in json.loads(missed.read_text())["rendered"]] == [4] * 4
    capsys.readouterr()
    # As many processes as there are cores elsewhere: samples are the same, and so is the network.
    again = adaptive.load("textscale_finetune", *data, *SMALL, *start, "data.workers=2")
    again = again.run(tmp_path / "second")
    assert again.summary == result.summary
    assert capsys.readouterr().err.count("done before, kept") == 5  # all but the report


def test_a_vit_that_spends_tokens_is_trained_at_several_shares(data, tmp_path):
    changes = ["net.backbone=tiny_tokens", "net.tokens=[1,0.5]", "net.prior=centre"]
    changes += ["detect.tokens=0.5", "~data.train.photographs", "data.valid.images=valid"]
    trained = adaptive.load("textscale_vit", *data, *SMALL, *changes).run(tmp_path / "run")
    assert trained.summary["train.steps"] == 4 and 0 <= trained.summary["f"] <= 1
    net = load_net(tmp_path / "run")
    assert net.size == replace(SIZE, backbone="tiny_tokens") and net.spends_tokens


def test_words_of_photographs_that_cannot_be_read_are_not_mined(data, tmp_path):
    (tmp_path / "train/s1.png").write_bytes(b"damaged")
    save_net(make_net(), tmp_path / "net.safetensors")
    start = [
        f"net.init={tmp_path / 'net.safetensors'}",
        "~data.train.photographs",
        "data.valid=null",
    ]
    result = adaptive.load("textscale_finetune", *data, *SMALL, *start).run(tmp_path / "run")
    missed = json.loads((tmp_path / "run/artifacts/mine/missed.json").read_text())["rendered"]
    assert missed[1] == [0] * 4 and len(missed) == 4 and result.summary["train.steps"] == 4


def test_mistakes_are_told(data, tmp_path):
    def load(*changes):
        return adaptive.load("textscale_pretrain", *data, *SMALL, *changes)

    with pytest.raises(UserError, match="data.train is empty"):
        load("~data.train.rendered")
    with pytest.raises(UserError, match="every share is 0"):
        load("data.train.rendered.share=0")
    with pytest.raises(UserError, match="train.mining=0.5 looks for what a trained network misses"):
        load("train.mining=0.5")
    with pytest.raises(UserError, match="unknown size of a text network 'big'"):
        load("net.size=big")
    with pytest.raises(UserError, match="train.batch=2 must be a multiple of train.accumulate=3"):
        load("train.accumulate=3")
    with pytest.raises(UserError, match="train.warmup_steps=4 must be below train.steps=4"):
        load("train.warmup_steps=4")
    with pytest.raises(UserError, match="net.tokens=.*must be shares of the full grid"):
        load("net.tokens=[1,0]")
    with pytest.raises(UserError, match="detect.tokens=2.0 must lie above 0, to 1"):
        load("detect.tokens=2")
    with pytest.raises(UserError, match="net.backbone=tiny_tokens is that of net.init=there"):
        load("net.backbone=tiny_tokens", "net.init=there")
    with pytest.raises(UserError, match="'test_efficientnet' .* has no choice of tokens"):
        load("net.tokens=[0.5]").run(tmp_path / "run")
    with pytest.raises(UserError, match="sample.side=96 must be a multiple of 64"):
        load("net.backbone=quadformer_tiny_patch16_256", "sample.side=96").run(tmp_path / "run")
    with pytest.raises(UserError, match="there are no weights"):
        load("net.init=nowhere").run(tmp_path / "run")


def test_missed_words_get_their_share():
    care = [np.array([True, True]), np.array([True, False])]
    missed = [np.array([True, False]), np.array([False, False])]
    weights = mined_weights(care, missed, 0.4)
    np.testing.assert_allclose(weights[0], [0.2 + 0.4, 0.2])
    np.testing.assert_allclose(weights[1], [0.2, 0.0])
