"""The network as a detector, and as an ONNX file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text import make_net
from tiny_vit_net import make_vit_net

from adaptive.textscale.canvas import padded
from adaptive.textscale.network import TextDetector, export_onnx
from adaptive.textscale.network.detector import padded_size

DETECTOR = TextDetector(make_net())


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(height=st.integers(1, 100), width=st.integers(1, 100))
@settings(max_examples=5)
def test_maps_cover_the_image_and_no_more(height, width):
    maps = DETECTOR.maps(noise(height, width))
    cells = (math.ceil(height / 4), math.ceil(width / 4))
    assert maps.probability_hw.shape == maps.log_scale_hw.shape == maps.border_hw.shape == cells
    assert maps.stride == 4 and 0 <= maps.probability_hw.min() <= maps.probability_hw.max() <= 1


def test_what_is_added_repeats_the_last_pixels():
    image_HW3 = noise(33, 40)
    assert padded_size(33, 40) == (64, 64)
    wide_HW3 = padded(image_HW3, 32)
    assert np.array_equal(wide_HW3[:33, :40], image_HW3)
    assert (wide_HW3[33:, :40] == image_HW3[-1]).all() and (
        wide_HW3[:, 40:] == wide_HW3[:, 39:40]
    ).all()
    assert padded(wide_HW3, 32) is wide_HW3


def test_images_together_are_as_images_alone():
    detector = TextDetector(make_net())
    images = [noise(64, 96, 0), noise(40, 40, 1), noise(60, 70, 2), noise(64, 64, 3)]
    for image_HW3, together in zip(images, detector.maps_of(images), strict=True):
        alone = detector.maps(image_HW3)
        for name in ("probability_hw", "log_scale_hw", "border_hw"):
            np.testing.assert_allclose(getattr(together, name), getattr(alone, name), atol=1e-5)
    assert detector.maps_of([]) == []


def test_maps_are_the_networks():
    net, image_HW3 = make_net(), noise(64, 64)
    maps = TextDetector(net).maps(image_HW3)
    output_3hw = net(torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() / 255)[0].detach()
    np.testing.assert_allclose(maps.probability_hw, output_3hw[0].sigmoid(), atol=1e-5)
    np.testing.assert_allclose(maps.border_hw, output_3hw[1].sigmoid(), atol=1e-5)
    np.testing.assert_allclose(maps.log_scale_hw, output_3hw[2], atol=1e-5)


@pytest.mark.usefixtures("compiling")
def test_compiled_maps_are_eager_ones(monkeypatch):
    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda net, dynamic: compiler(net, dynamic=dynamic, backend="eager")
    )
    eager, compiled = (TextDetector(make_net(), compile=on) for on in (False, True))
    one, other = (detector.maps(noise(64, 64)) for detector in (eager, compiled))
    np.testing.assert_allclose(one.probability_hw, other.probability_hw, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize("make", [make_net, lambda: make_vit_net().spend(0.5)], ids=["cnn", "vit"])
def test_the_onnx_file_takes_any_images(tmp_path, make):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = make().train()
    session = onnxruntime.InferenceSession(export_onnx(net, tmp_path / "net.onnx"))
    assert net.training
    if net.spends_tokens:
        net.spend(1.0)
    net.eval()
    for shape in ((1, 3, 64, 64), (3, 3, 32, 96)):
        image_B3HW = torch.rand(shape)
        expected_B3hw = net(image_B3HW).detach()
        probability_Bhw, border_Bhw, scale_Bhw = session.run(None, {"image": image_B3HW.numpy()})
        np.testing.assert_allclose(probability_Bhw, expected_B3hw[:, 0].sigmoid(), atol=1e-4)
        np.testing.assert_allclose(border_Bhw, expected_B3hw[:, 1].sigmoid(), atol=1e-4)
        np.testing.assert_allclose(scale_Bhw, expected_B3hw[:, 2], atol=1e-4)


@pytest.mark.gpu
def test_half_precision_on_a_gpu_says_the_same():
    image_HW3 = noise(96, 128)
    exact = TextDetector(make_net()).maps(image_HW3)
    quick = TextDetector(make_net(), device="cuda").maps(image_HW3)
    np.testing.assert_allclose(quick.probability_hw, exact.probability_hw, atol=2e-2)
