"""Detectors in ONNX files, real ones and wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.data.images import decode_image
from adaptive.textscale.onnx_detector import OnnxDetector

MODELS = ["ch_PP-OCRv3_det_infer", "ch_ppocr_mobile_v2.0_det_infer"]


@pytest.fixture
def photograph(data_dir: Path) -> np.ndarray:
    file = data_dir / "scene_text/icdar15_1280x720_sample/imgs/test/img_1.jpg"
    return decode_image(file.read_bytes(), file.name)


def model(data_dir: Path, name: str) -> Path:
    return data_dir / "scene_text/models" / f"{name}.onnx"


@pytest.mark.data
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["onnxruntime", "opencv"])
def test_ppocr_finds_the_ten_on_the_wall(data_dir, photograph, name, backend):
    detector = OnnxDetector(model(data_dir, name), threads=1, backend=backend)
    found = detector(photograph)
    assert len(found) >= 4
    low_N2, high_N2 = found.quad_N42.min(1), found.quad_N42.max(1)
    ten = (low_N2 > (340, -20)).all(1) & (high_N2 < (540, 120)).all(1)
    assert ten.any() and found.score_N[ten].max() > 0.6


@pytest.mark.data
def test_its_own_map_is_a_prior_with_scales(data_dir, photograph):
    detector = OnnxDetector(model(data_dir, MODELS[0]), threads=1)
    maps = detector.maps(photograph)
    assert maps.probability_hw.shape == photograph.shape[:2] and maps.stride == 1
    text_hw = maps.probability_hw > 0.3
    heights = 32 * np.exp(maps.log_scale_hw[text_hw])
    assert 8 < np.percentile(heights, 10) < 25 and 70 < heights.max() < 140


@pytest.mark.data
def test_the_wrapped_detector_reads_more_at_fewer_pixels(data_dir, photograph):
    detector = OnnxDetector(model(data_dir, MODELS[0]), threads=1)
    result = AdaptiveDetector(detector, budget={"pixels": 500_000}).inspect([photograph])
    assert result.pass1_pixels + result.pass2_pixels <= 500_000
    assert len(result.detections[0]) >= len(result.looks[0].found)
    assert len(result.detections[0]) >= 6


def write_network(path: Path, outputs: list[list]) -> Path:
    """An ONNX file of 3-channel images that gives means over channels, once for each shape."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    names = [f"y{i}" for i in range(len(outputs))]
    nodes = [helper.make_node("ReduceMean", ["x"], [n], axes=[1], keepdims=1) for n in names]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("x", float32, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info(n, float32, o) for n, o in zip(names, outputs, strict=True)],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_file_with_other_outputs_says_what_it_has(tmp_path):
    pytest.importorskip("onnxruntime")
    path = write_network(tmp_path / "two.onnx", [["n", 1, "h", "w"]] * 2)
    with pytest.raises(UserError, match=r"gives \[1, 1, 64, 64\], \[1, 1, 64, 64\].*expected"):
        OnnxDetector(path)


def test_one_map_is_enough(tmp_path):
    pytest.importorskip("onnxruntime")
    detector = OnnxDetector(write_network(tmp_path / "one.onnx", [["n", 1, "h", "w"]]))
    image_HW3 = np.zeros((50, 70, 3), np.uint8)
    image_HW3[10:30, 20:60] = 255
    (quad_42,) = detector(image_HW3).quad_N42
    assert quad_42.mean(0) == pytest.approx([40, 20], abs=0.5)


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_what_is_no_network_is_refused(tmp_path, content):
    path = tmp_path / "file.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"detector.path=.*file.onnx"):
        OnnxDetector(path)
