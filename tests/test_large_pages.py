"""The bench of large pages, on small ones: both kinds of detector, once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_text import make_net, make_words, rectangle

from adaptive.experiments.bench import large_pages as script
from adaptive.textscale.network import save_net
from adaptive.textscale.words import Detections

SMALL = ["--pages", "2", "--width", "700", "--height", "800", "--fill", "0.3", "--threads", "1"]
FEW = ["--zooms", "0.5", "1", "--sides", "320", "512"]


def row(recall: float, megapixels: float) -> dict[str, float]:
    return {"recall": recall, "megapixels": megapixels, "ms_per_image": 100 * megapixels}


def test_the_cheapest_tiling_with_as_much_recall_is_what_counts():
    table = {
        "tiling x0.5": row(0.4, 18),
        "tiling x1": row(0.8, 70),
        "tiling x2": row(0.85, 280),
        "adaptive 1": row(0.6, 5),
        "adaptive 2": row(0.9, 9),
        "adaptive 3": row(0.4, 4.5),
    }
    found = script.against_tiling(table, "recall")
    assert found["adaptive 1"] == {
        "tiling": "tiling x1",
        "recall": 0.8,
        "times": {"megapixels": 14, "ms_per_image": 14},
    }
    assert found["adaptive 2"] is None
    assert found["adaptive 3"]["tiling"] == "tiling x0.5"
    assert found["adaptive 3"]["times"]["megapixels"] == 4


def test_a_word_is_in_a_line_that_is_not_much_higher():
    words = make_words(rectangle(30, 10, 40, 10), rectangle(90, 10, 40, 10))
    line, block = rectangle(60, 10, 120, 14), rectangle(60, 20, 120, 40)
    half = rectangle(30, 10, 70, 12)

    def found(*quads):
        quad_N42 = np.array(quads, np.float32).reshape(-1, 4, 2)
        return Detections(quad_N42, np.ones(len(quads), np.float32))

    counts = [script.in_lines(words, found(*q)) for q in ([line], [block], [half], [])]
    assert counts == [2, 0, 1, 0]


def test_a_network_is_measured_once(tmp_path, monkeypatch):
    save_net(make_net(), tmp_path / "net.safetensors")
    out = ["--out", str(tmp_path / "record.json"), "--network", str(tmp_path / "net.safetensors")]
    script.main([*SMALL, *FEW, *out])
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["commit"] and record["date"] and "platform" in record["environment"]
    entry = record["detectors"]["network"]
    assert set(entry["ways"]) == {"tiling x0.5", "tiling x1", "adaptive 320", "adaptive 512"}
    assert entry["words"] > 20
    # 700 x 800 in four tiles of 640, sides up to multiples of 32; and a copy of 288 x 320.
    assert entry["ways"]["tiling x1"]["megapixels"] == pytest.approx(4 * 0.64**2)
    assert entry["ways"]["adaptive 320"]["megapixels"] >= 0.288 * 0.32
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("again"))
    script.main([*SMALL, *FEW, *out])
    with pytest.raises(SystemExit, match="is of .*move it away"):
        script.main([*SMALL, "--pages", "1", *out])


@pytest.mark.data
def test_a_file_is_tried_with_its_own_prior_and_with_ours(tmp_path, data_dir):
    save_net(make_net(), tmp_path / "net.safetensors")
    model = data_dir / "scene_text/models/ch_PP-OCRv3_det_infer.onnx"
    given = ["--onnx", str(model), "--network", str(tmp_path / "net.safetensors")]
    arguments = [*SMALL, "--pages", "1", "--zooms", "1", "--sides", "736", *given]
    script.main([*arguments, "--out", str(tmp_path / "record.json")])
    found = json.loads((tmp_path / "record.json").read_text())["detectors"]
    assert set(found) == {"onnx", "onnx, our prior", "network"}
    assert found["onnx"]["ways"]["adaptive 736"]["line_recall"] > 0.2
    judged = [entry["judged_by"] for entry in found.values()]
    assert judged == ["line_recall", "line_recall", "recall"]


def test_something_to_measure_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main([])
    assert "give --onnx, --network or both" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: .*there are no weights"):
        script.main(["--network", str(tmp_path), "--out", str(tmp_path / "record.json")])
