"""The tasks: configurations, recipes, and a run over photographs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from text_stand_ins import Reader, random_scene
from tiny_text import make_net

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.compare.methods import known_look
from adaptive.textscale.compare.stages import open_images
from adaptive.textscale.config import TextEvalConfig
from adaptive.textscale.data.files import IMAGES, TEXTS, by_sample, open_files
from adaptive.textscale.detectors import CHOICES
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.network import save_net
from adaptive.textscale.train.settings import DetectConfig

EVAL = ("detector.path=net.onnx",)


@pytest.mark.parametrize("name", CHOICES)
def test_a_detector_is_chosen_by_name(name):
    config = adaptive.load("textscale_eval", f"detector={name}", *EVAL).config
    assert config.detector.kind == name and config.prior.kind == "same"
    other = adaptive.load("textscale_eval", f"prior={name}", "prior.path=x", *EVAL).config
    assert other.prior.kind == name and other.prior.path == "x"


def test_a_network_is_measured_as_its_training_measures_it():
    one, other = adaptive.load("textscale_eval", *EVAL).config.detector, DetectConfig()
    for name in ("threshold", "box_threshold", "grow"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("textscale_eval", ("detector.path=''",), "detector.path is empty"),
        ("textscale_eval", ("prior=onnx", *EVAL), "prior.path is empty"),
        ("textscale_eval", ("sides=[0]", *EVAL), "sides="),
        ("textscale_eval", ("sides=[]", "calibrate=true", *EVAL), "calibrate needs sides"),
        ("textscale_eval", ("adapt.pass1_share=0", *EVAL), "adapt.pass1_share=0"),
        ("textscale_eval", ("detector.threshold=2", *EVAL), "detector.threshold=2"),
        ("textscale_eval", ("data.images=''", *EVAL), "data.images is empty"),
        ("textscale_eval", ("data.images=render:", *EVAL), "data.images=render:: write a number"),
        ("textscale_eval", ("data.images=render:0", *EVAL), "such as render:24"),
        ("textscale_detect", ("input=''", *EVAL), "input is empty"),
        ("textscale_detect", ("output=''", *EVAL), "output is empty"),
    ],
)
def test_mistakes_are_told(recipe, overrides, words):
    with pytest.raises(UserError, match=words):
        adaptive.load(recipe, *overrides)


def test_an_unknown_baseline_is_told(tmp_path):
    experiment = adaptive.load("textscale_eval", "+baselines.best={}", *EVAL)
    with pytest.raises(UserError, match="unknown baseline 'best'"):
        experiment.stages()


@pytest.mark.slow
def test_rendered_scenes_need_no_data(tmp_path):
    save_net(make_net(), tmp_path / "net.safetensors")
    given = [f"detector.path={tmp_path / 'net.safetensors'}", "data.images=render:2", "device=cpu"]
    quick = ["sides=[320]", "oracle=false", "budget.pixels=100000", "~baselines.tiling"]
    quick += ["~baselines.fixed_zoom", "~baselines.three_zooms"]
    found = adaptive.load("textscale_eval", *given, *quick).run(tmp_path / "run").summary
    assert (found["images"], found["unreadable"]) == (2, 0)
    assert 0 < found["megapixels"] <= 0.1


def test_rendered_scenes_are_told_apart_by_number_and_seed():
    settings = [("2", 0), ("2", 0), ("3", 0), ("2", 1)]
    sets = [open_images(load_eval(f"data.images=render:{n}", f"seed={s}")) for n, s in settings]
    marks = [str(images.identity()) for images in sets]
    assert marks[0] == marks[1] and len(set(marks)) == 3 and len(sets[2]) == 3


def test_a_network_without_weights_is_told_at_the_start():
    with pytest.raises(UserError, match="detector.path=nowhere: there are no weights"):
        adaptive.load("textscale_eval", "detector.path=nowhere", "data.images=render:2").stages()


def load_eval(*overrides: str) -> TextEvalConfig:
    config = adaptive.load("textscale_eval", *overrides, *EVAL).config
    assert isinstance(config, TextEvalConfig)
    return config


def test_a_perfect_prior_finds_all_words_in_the_second_pass_alone():
    image_HW3, words = random_scene(4)
    detector = AdaptiveDetector(Reader(), _NoMaps())
    result = detector.inspect([image_HW3], [known_look(image_HW3, words)])
    assert result.pass1_pixels == 0
    assert score([match(words, result.detections[0])]).hmean == 1


class _NoMaps:
    """A prior that must not be asked."""

    def maps(self, image_HW3):
        raise AssertionError("pass 1 was known already")

    boxes = maps


@pytest.mark.data
@pytest.mark.slow
def test_the_second_look_at_photographs(tmp_path, data_dir):
    folder = tmp_path / "images"
    folder.mkdir()
    files = open_files(data_dir / "scene_text/icdar15/val.tar", "images")
    for suffixes in (IMAGES, TEXTS):
        for file in by_sample(files, suffixes, "gt_").values():
            (folder / Path(file).name).write_bytes(files.read(file))
    for extra in sorted(folder.glob("*.jpg"))[2:]:
        extra.unlink()
    model = data_dir / "scene_text/models/ch_PP-OCRv3_det_infer.onnx"
    experiment = adaptive.load(
        "textscale_eval",
        f"data.images={folder}",
        "detector=onnx",
        f"detector.path={model}",
        "budget.pixels=400000",
        "sides=[480]",
        "device=cpu",
    )
    summary = experiment.run(tmp_path / "run").summary
    assert 0 <= summary["f"] <= 1 and summary["megapixels"] <= 0.4
    assert summary["oracle.megapixels"] < summary["megapixels"]
    for key in ("precision", "recall", "ms_per_image", "pass1_recall", "recall.h_lt16"):
        assert key in summary
    for name in ("single_480", "tiling", "fixed_zoom", "three_zooms"):
        assert math.isfinite(summary[f"baseline.{name}.ms_per_image"])
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
