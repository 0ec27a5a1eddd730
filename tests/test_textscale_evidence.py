"""The script that measures a trained text network in every way, with a tiny one."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from text_stand_ins import Reader, random_scene
from tiny_text import Scenes, make_net

from adaptive.experiments import textscale_evidence as script
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.data.icdar import format_words
from adaptive.textscale.network import save_net
from adaptive.textscale.recall import RecallCurve
from adaptive.textscale.settings import AdaptConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network that was not trained, and folders ``val`` and ``train`` of scenes."""
    home = tmp_path_factory.mktemp("evidence")
    net = make_net()
    torch.nn.init.normal_(net.head[-1].weight[0], std=0.5)
    save_net(net, home / "net.safetensors")
    for name, first, count in (("val", 0, 2), ("train", 10, 5)):
        (home / name).mkdir()
        for sample, image_HW3, words in Scenes(count, first):
            cv2.imwrite(str(home / name / f"{sample}.png"), image_HW3[..., ::-1])
            (home / name / f"gt_{sample}.txt").write_text(format_words(words))
    return home


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(script, "SIDES", (96, 192))
    monkeypatch.setattr(script, "CURVE_SIDES", (96, 128, 192))
    monkeypatch.setattr(script, "TUNED_SIDE", 192)
    monkeypatch.setattr(script, "THRESHOLDS", (0.3, 0.5))
    monkeypatch.setattr(script, "BOX_THRESHOLDS", (0.5,))
    monkeypatch.setattr(script, "BUDGETS", (12_000, 40_000))
    monkeypatch.setattr(script, "PASS1", {"network": (96,), "onnx": (192,)})


def start(files, *more, out="record.json"):
    data = ["--val", str(files / "val"), "--train", str(files / "train"), "--threads", "1"]
    given = ["--out", str(files / out), "--network", str(files / "net.safetensors")]
    script.main([*data, *given, *more])
    return json.loads((files / out).read_text())


def test_every_way_is_measured_once(files, monkeypatch):
    record = start(files)
    assert record["images"] == 2 and record["commit"] and set(record["tuned"]) == {"network"}
    assert set(record["tuned"]["network"]) == {"threshold", "box_threshold", "curve"}
    table = record["ways"]["network, cpu"]
    adaptive = {"adaptive 96", "adaptive 96 at 12000", "adaptive 96 at 40000"}
    oracle = {"oracle at 12000", "oracle at 40000"}
    assert set(table) == {"single 96", "single 192", *script.OTHERS, *adaptive, *oracle}
    assert table["single 192"]["megapixels"] == pytest.approx(0.192 * 0.16)
    for pixels in script.BUDGETS:
        assert table[f"adaptive 96 at {pixels}"]["megapixels"] <= pixels / 1e6
        assert 0 <= table[f"oracle at {pixels}"]["f"] <= 1
    assert {"pass1_recall", "scale_error", "overhead_ms_at_30"} <= set(table["adaptive 96"])
    monkeypatch.setattr(script, "tuned", lambda *_: pytest.fail("again"))
    monkeypatch.setattr(script, "over", lambda *_, **__: pytest.fail("again"))
    assert start(files) == record
    with pytest.raises(SystemExit, match="is of .*move it away"):
        start(files, "--threads", "2")


def test_thresholds_are_those_with_the_best_f(monkeypatch):
    """Of two detectors, one reads the words and the other nothing."""

    class Sees(Reader):
        def maps(self, image_HW3):
            return image_HW3

        def boxes(self, maps):
            return self(maps)

    built = {0.3: Sees(least=90), 0.5: Sees(least=3)}
    monkeypatch.setattr(script, "build_detector", lambda config, device: built[config.threshold])
    monkeypatch.setattr(script, "TUNED_SIDE", 640)
    images = [(f"img_{i}", *random_scene(i)) for i in range(3)]
    assert script.tuned(script.DetectorConfig(path="net"), images, "cpu").threshold == 0.5


def test_time_is_told_at_a_number_of_regions(monkeypatch):
    measured = script.over(
        [(f"img_{i}", *random_scene(i, words=2 + 4 * i)) for i in range(3)],
        AdaptiveDetector(
            Reader(), _NoMaps(), recall=RecallCurve(), config=AdaptConfig(pass1_side=96)
        ),
        oracle=True,
    )
    count_I = np.array([len(regions) for regions in measured.regions])
    assert len(set(count_I.tolist())) > 1
    measured.overhead = (1e-3 * (1 + 0.1 * count_I)).tolist()
    assert script.details(measured)["overhead_ms_at_30"] == pytest.approx(4)
    assert script.details(measured)["pass1_recall"] == 1


class _NoMaps:
    """A prior that must not be asked."""

    def maps(self, image_HW3):
        raise AssertionError("regions were known already")

    boxes = maps


@pytest.mark.data
def test_a_file_is_measured_with_its_prior_and_with_ours(files, data_dir):
    model = data_dir / "scene_text/models/ch_PP-OCRv3_det_infer.onnx"
    record = start(files, "--onnx", str(model), out="both.json")
    own, ours = record["ways"]["onnx, cpu"], record["ways"]["onnx with our prior, cpu"]
    assert "single 192" in own and "adaptive 192 at 40000" in own
    assert set(ours) == {"adaptive 96", "adaptive 96 at 12000", "adaptive 96 at 40000"}


def test_something_to_measure_is_needed(capsys):
    with pytest.raises(SystemExit):
        script.main([])
    assert "give --network, --onnx or both" in capsys.readouterr().err
