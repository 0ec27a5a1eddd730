from __future__ import annotations

import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from adaptive.core.errors import UserError
from adaptive.textscale.data.files import open_files
from adaptive.textscale.data.images import UnreadableImage, decode_image
from adaptive.textscale.data.labelled import LabelledImages

LINE = b"0,0,4,0,4,2,0,2,word\n"
COLOURS = {"img_1.png": (200, 30, 10), "img_2.PNG": (10, 200, 30), "img_10.png": (0, 0, 0)}


def png(colour, size=(8, 6)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "png")
    return content.getvalue()


@pytest.fixture
def contents():
    images = {name: png(colour) for name, colour in COLOURS.items()}
    return images | {f"gt_img_{n}.txt": LINE * n for n in (1, 2, 10)}


def pack(contents, path):
    if path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for name, content in contents.items():
                info = tarfile.TarInfo(f"val/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        path.mkdir()
        for name, content in contents.items():
            (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("home", ["set", "set.tar", "set.zip"])
def test_folders_and_archives_hold_the_same(home, contents, tmp_path):
    path = pack(contents, tmp_path / home)
    images = LabelledImages(path)
    assert images.names == ["img_1", "img_2", "img_10"]
    for (name, image_HW3, words), colour in zip(images, COLOURS.values(), strict=True):
        assert image_HW3.shape == (6, 8, 3) and (image_HW3 == colour).all()
        assert len(words) == int(name.removeprefix("img_"))
    assert images.unreadable == [] and images[-1][0] == "img_10"
    assert [name for name, _, _ in images[:2]] == ["img_1", "img_2"]
    again = pickle.loads(pickle.dumps(images))
    assert again[1][0] == "img_2" and again.identity() == images.identity()


def test_annotations_may_lie_elsewhere(contents, tmp_path):
    pack({n: c for n, c in contents.items() if n.lower().endswith("png")}, tmp_path / "a.tar")
    pack({n: c for n, c in contents.items() if n.endswith("txt")}, tmp_path / "b.zip")
    images = LabelledImages(tmp_path / "a.tar", tmp_path / "b.zip")
    assert [len(words) for words in images.words] == [1, 2, 10]


@pytest.mark.parametrize("damaged", [b"", b"not an image", png((1, 2, 3))[:40]])
def test_an_unreadable_photograph_is_named_left_out_and_counted(
    damaged, contents, tmp_path, capsys
):
    images = LabelledImages(pack(contents | {"img_2.PNG": damaged}, tmp_path / "set"))
    assert [name for name, _, _ in images] == ["img_1", "img_10"]
    assert images.unreadable == ["img_2"]
    assert "img_2.PNG" in capsys.readouterr().err
    with pytest.raises(UnreadableImage, match=r"set/img_2.PNG"):
        images[1]


def test_photographs_are_turned_as_their_camera_says():
    image = Image.new("RGB", (8, 6), "white")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    content = io.BytesIO()
    image.save(content, "png", exif=exif)
    image_HW3 = decode_image(content.getvalue(), "turned.png")
    assert image_HW3.shape == (8, 6, 3)
    assert np.argwhere((image_HW3 != 255).any(-1)).tolist() == [[0, 5]]


def test_an_image_beyond_all_bounds_is_told_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(UnreadableImage, match="large.png is too large, cut it into parts"):
        decode_image(png((0, 0, 0)), "large.png")


def test_one_pixel_is_an_image():
    assert decode_image(png((1, 2, 3), (1, 1)), "dot.png").tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_pixels_becomes_rgb(mode):
    content = io.BytesIO()
    Image.new(mode, (3, 2)).save(content, "tiff")
    image_HW3 = decode_image(content.getvalue(), "x.tif")
    assert image_HW3.shape == (2, 3, 3) and image_HW3.dtype == np.uint8


def test_mistakes_are_told(contents, tmp_path):
    with pytest.raises(UserError, match="images=.*nowhere: there is no such folder"):
        LabelledImages(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"x" * 2000)
    with pytest.raises(UserError, match="neither a folder nor a .zip nor an uncompressed .tar"):
        LabelledImages(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        LabelledImages(tmp_path / "empty")
    del contents["gt_img_2.txt"]
    with pytest.raises(UserError, match=r"has no gt_img_2.txt for img_2.PNG \(1 such\)"):
        LabelledImages(pack(contents, tmp_path / "set"))
    (tmp_path / "set" / "gt_img_2.txt").write_bytes(LINE)
    with pytest.raises(UserError, match="gt_img_1.txt:1 has 9 fields"):
        LabelledImages(tmp_path / "set", format="mlt17")


def test_two_files_of_one_sample_are_a_mistake(contents, tmp_path):
    path = pack(contents, tmp_path / "set")
    (path / "img_1.jpg").write_bytes(png((0, 0, 0)))
    with pytest.raises(UserError, match="img_1.jpg and img_1.png, both of the sample 'img_1'"):
        LabelledImages(path)


def test_the_identity_changes_with_the_files(contents, tmp_path):
    path = pack(contents, tmp_path / "set")
    before = open_files(path, "images").identity()
    (path / "img_3.png").write_bytes(b"")
    assert open_files(path, "images").identity() != before


@pytest.mark.data
def test_the_shared_set(data_dir):
    images = LabelledImages(data_dir / "scene_text" / "icdar15" / "train.tar")
    assert (len(images), sum(map(len, images.words))) == (400, 5220)
    assert sum(words.care_N.sum() for words in images.words) == 1980
    name, image_HW3, words = images[0]
    assert name == "img_1" and image_HW3.shape == (640, 960, 3) and len(words)
