"""The tasks: configurations, recipes, and a run over photographs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import load_file
from text_stand_ins import Reader, random_scene
from tiny_text import make_net

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.compare.methods import Measured, known_look
from adaptive.textscale.compare.stages import keep_pictures, open_images
from adaptive.textscale.config import TextEvalConfig
from adaptive.textscale.data.files import IMAGES, TEXTS, by_sample, open_files
from adaptive.textscale.data.labelled import LabelledImages
from adaptive.textscale.detectors import CHOICES
from adaptive.textscale.evaluate.icdar import match, score
from adaptive.textscale.network import save_net
from adaptive.textscale.regions import known_regions
from adaptive.textscale.train.settings import DetectConfig
from adaptive.textscale.words import Detections

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
    sets = [open_images(load_eval(f"data.images=render:{n}").data, s) for n, s in settings]
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


def test_pictures_are_of_what_could_be_read_and_forget_no_unreadable_one(tmp_path):
    shades = {"a": 10, "b": None, "c": 30, "d": 40, "e": 50, "f": None}
    for name, shade in shades.items():
        (tmp_path / f"gt_{name}.txt").write_text("0,0,4,0,4,2,0,2,word\n")
        path = tmp_path / f"{name}.png"
        if shade is None:
            path.write_bytes(b"not an image")
        else:
            Image.new("RGB", (8, 6), (shade, 0, 0)).save(path)
    images = LabelledImages(tmp_path)
    measured = Measured()
    for _, image_HW3, words in images:
        measured.add(words, Detections.none(), image_HW3.size, 0.1)
        measured.regions.append(known_regions(words, 8, 6))
    keep_pictures(images, measured, tmp_path / "pictures.safetensors")
    kept = load_file(tmp_path / "pictures.safetensors")
    assert [int(kept[f"{n}.image_HW3"][0, 0, 0]) for n in range(3)] == [10, 30, 40]
    assert len(kept["0.missed_N42"]) == 1 and len(kept["0.found_N42"]) == 0
    assert images.unreadable == ["b", "f"]


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
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    for words in ("<strong>adaptive</strong>", "Recall by height", "Photograph 2:", "a ceiling"):
        assert words in page
