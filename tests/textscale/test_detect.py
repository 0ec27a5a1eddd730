"""Folders of images, good and bad ones."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from text_stand_ins import Oracle, Reader, scene

import adaptive
from adaptive.core.errors import UserError
from adaptive.textscale.adaptive_detector import AdaptiveDetector
from adaptive.textscale.data.images import UnreadableImage
from adaptive.textscale.detect.folder import detect_folder
from adaptive.textscale.detect.reading import read_bounded
from adaptive.textscale.evaluate.results import read_results
from adaptive.textscale.settings import AdaptConfig

BOXES = [(40, 40, 60, 20), (200, 160, 30, 9)]


def encoded(image_HW3: np.ndarray, format: str = "PNG", **save) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format, **save)
    return buffer.getvalue()


def detector_of(words, width: int = 320) -> AdaptiveDetector:
    reader = Reader()
    config = AdaptConfig(pass1_side=width)
    return AdaptiveDetector(reader, Oracle(words, width, reader), config=config)


def test_words_of_a_folder_are_written_and_bad_images_counted(tmp_path, capsys):
    image_HW3, words = scene(320, 240, BOXES)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b.png").write_bytes(encoded(image_HW3))
    (folder / "a.png").write_bytes(encoded(image_HW3))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    report = detect_folder(detector_of(words), folder, tmp_path / "out")
    assert (report.images, report.words) == (2, 4)
    assert sorted(report.skipped) == ["broken.png", "empty.jpg"]
    assert "left out: empty.jpg is empty" in capsys.readouterr().err
    assert [len(found) for found in read_results(tmp_path / "out/icdar").values()] == [2, 2]
    record = json.loads((tmp_path / "out/json/a.json").read_text())
    assert (record["width"], record["height"], len(record["words"])) == (320, 240, 2)
    quads = sorted(word["quad"][0] for word in record["words"])
    assert quads[0] == pytest.approx(BOXES[0][:2], abs=1)
    assert quads[1] == pytest.approx(BOXES[1][:2], abs=1)
    with Image.open(tmp_path / "out/overlays/a.jpg") as picture:
        red = np.asarray(picture.convert("RGB"))[38:62, 39:41].astype(int)
    assert (red[..., 0] > red[..., 1] + 50).any()
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["images"] == 2
    assert index["found"]["a"] == {"image": "a.png", "width": 320, "height": 240, "words": 2}


def test_images_of_one_name_keep_apart(tmp_path):
    """As photographs of several cameras, each in its folder, and copies in other formats."""
    image_HW3, words = scene(320, 240, BOXES)
    for name in ("in/x/1.png", "in/y/1.png", "in/2.png", "in/2.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(image_HW3, Path(name).suffix[1:].upper()))
    report = detect_folder(detector_of(words), tmp_path / "in", tmp_path / "out")
    assert report.images == 4
    made = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    for name in ("x/1", "y/1", "2.png", "2.bmp"):
        folder, _, last = name.rpartition("/")
        assert {f"json/{name}.json", f"overlays/{name}.jpg"} <= made
        assert f"icdar/{folder}/res_{last}.txt".replace("//", "/") in made


def test_an_output_that_is_a_file_is_told(tmp_path):
    image_HW3, words = scene(320, 240, BOXES)
    (tmp_path / "a.png").write_bytes(encoded(image_HW3))
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file: name a folder"):
        detect_folder(detector_of(words), tmp_path, tmp_path / "out")


def test_a_damaged_place_in_an_archive_is_an_image_left_out(tmp_path):
    image_HW3, words = scene(320, 240, BOXES)
    noise = np.random.default_rng(0).bytes(4000)
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", encoded(image_HW3))
        archive.writestr("b.png", b"text " * 2000 + noise)
        place = archive.getinfo("b.png").header_offset
    content = bytearray((tmp_path / "in.zip").read_bytes())
    content[place + 60 : place + 90] = bytes(30)
    (tmp_path / "in.zip").write_bytes(content)
    report = detect_folder(detector_of(words), tmp_path / "in.zip", tmp_path / "out")
    assert (report.images, report.words) == (1, 2)
    assert "cannot be read" in report.skipped["b.png"]


def test_a_folder_without_images_is_told(tmp_path):
    _, words = scene(320, 240, BOXES)
    with pytest.raises(UserError, match="holds no images"):
        detect_folder(detector_of(words), tmp_path, tmp_path / "out")


def test_photographs_are_turned_as_their_camera_says():
    image_HW3, _ = scene(64, 32, [(4, 4, 30, 8)])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn clockwise by 90 degrees
    turned, shrink = read_bounded(encoded(image_HW3, exif=exif), "x.png", 10_000)
    assert shrink == 1 and turned.shape == (64, 32, 3)
    assert (turned == np.rot90(image_HW3, -1)).all()


def test_large_jpegs_are_decoded_smaller_and_other_formats_refused():
    image_HW3, _ = scene(640, 400, [(40, 40, 300, 200)])
    small, shrink = read_bounded(encoded(image_HW3, "JPEG"), "x.jpg", 20_000)
    assert shrink == 4 and small.shape == (100, 160, 3)
    assert small[30, 30, 1] > 200 and small[90, 150, 1] < 80
    with pytest.raises(UnreadableImage, match="x.png has 640 x 400 pixels, and max_pixels=20000"):
        read_bounded(encoded(image_HW3), "x.png", 20_000)
    with pytest.raises(UnreadableImage, match="has 640 x 400 pixels"):
        read_bounded(encoded(image_HW3, "JPEG"), "x.jpg", 1000)


def test_sides_of_forty_thousand_pixels_pass_in_bounded_memory():
    image_HW3 = np.full((40_000, 40, 3), 40, np.uint8)
    image_HW3[20_000:20_012, 4:34, 1] = 250
    read, _ = read_bounded(encoded(image_HW3), "strip.png", 2_000_000)
    reader = Reader(least=6)
    _, words = scene(40, 40_000, [(4, 20_000, 30, 12)])
    config = AdaptConfig(pass1_side=40_000)
    detector = AdaptiveDetector(
        reader, Oracle(words, 40, reader), {"pixels": 100_000}, config=config
    )
    result = detector.inspect([read])
    assert result.pass1_pixels + result.pass2_pixels <= 100_000
    assert max(max(shape) for shape in reader.inputs or [(0, 0)]) <= config.max_side


@pytest.mark.data
def test_a_run_tells_of_images_that_were_left_out(tmp_path, data_dir: Path):
    """After all others are done; the command then ends with an exit code of 1."""
    image_HW3, _ = scene(320, 240, BOXES)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/good.png").write_bytes(encoded(image_HW3))
    (tmp_path / "in/bad.png").write_bytes(b"")
    model = data_dir / "scene_text/models/ch_PP-OCRv3_det_infer.onnx"
    experiment = adaptive.load(
        "textscale_detect",
        "detector=onnx",
        f"detector.path={model}",
        f"input={tmp_path}/in",
        f"output={tmp_path}/out",
        "device=cpu",
    )
    with pytest.raises(UserError, match="1 of 2 images could not be read and were left out: bad"):
        experiment.run(tmp_path / "run")
    assert (tmp_path / "out/json/good.json").exists()
    page = (tmp_path / "run/artifacts/report/report.html").read_text()
    assert "bad.png is empty" in page and "<td>good.png</td>" in page
    assert page.count("<figure>") == 1
