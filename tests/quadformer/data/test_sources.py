"""Every source hands out the same images and labels, and says what is wrong with a bad one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_images import CLASSES, make_folder, make_tar

from adaptive.core.errors import UserError
from adaptive.quadformer.data.sources import REMOTE, ItemSource, open_source


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "train")


def opened(file):
    with Image.open(file) as image:
        return image.copy()


def hugging_face(folder, monkeypatch):
    """A stand-in for the package ``datasets``, which is optional."""
    rows = [
        {"image": opened(file), "label": CLASSES.index(file.parent.name)}
        for file in sorted(folder.rglob("*.png"))
    ]

    class Rows(list):
        features = {"image": None, "label": SimpleNamespace(names=CLASSES)}

    def load_dataset(name, split):
        if split != "train":
            raise ValueError(f"unknown split {split}")
        return Rows(rows)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


@pytest.fixture(params=["folder", "tar", *REMOTE])
def source(request, folder, tmp_path, monkeypatch):
    match request.param:
        case "folder":
            return open_source("train", tmp_path)
        case "tar":
            make_tar(tmp_path / "train.tar", folder)
            return open_source("train.tar", tmp_path)
        case "timm":
            return open_source("timm:folder", tmp_path, "train")
        case "hf":
            hugging_face(folder, monkeypatch)
            return open_source("hf:someone/colours", tmp_path, "train")
    raise AssertionError(f"{request.param} has no test")


def test_sources_agree(source, folder):
    files = sorted(folder.rglob("*.png"))
    assert len(source) == len(files) and source.classes == CLASSES
    found = [source.load(index) for index in range(len(source))]
    for (image, label), file in zip(found, files, strict=True):
        assert CLASSES[label] == file.parent.name
        assert image.mode == "RGB" and (np.asarray(image) == np.asarray(opened(file))).all()
    assert source.identity() == source.identity()


def test_an_identity_changes_with_the_files(folder):
    before = open_source(str(folder)).identity()
    (folder / "red" / "0.png").unlink()
    assert open_source(str(folder)).identity() != before


def test_files_that_are_no_images_or_have_no_class_are_left_out(folder):
    (folder / "README.txt").write_text("words")
    (folder / "red" / "notes.txt").write_text("words")
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    assert len(open_source(str(folder))) == 12


def bad(name, tmp_path, monkeypatch):
    if name == "empty":
        (tmp_path / "empty").mkdir()
    elif name == "torn":
        (tmp_path / "torn").write_bytes(b"no archive at all")
    elif name.startswith("hf:"):
        monkeypatch.setitem(sys.modules, "datasets", None)
    return open_source(name, tmp_path, "nowhere")


@pytest.mark.parametrize(
    "name, words",
    [
        ("empty", "holds no images: put them in one folder a class"),
        ("torn", "cannot read .*torn as an uncompressed tar"),
        ("nowhere", "there is no .*nowhere; set data.train"),
        ("hg:someone/colours", "unknown kind of image source 'hg', choose one of hf, timm"),
        ("hf:someone/colours", r"pip install 'adaptive-compute\[datasets\]'"),
        ("timm:torch/no_such_set", "timm:torch/no_such_set with split 'nowhere' cannot be read"),
    ],
)
def test_mistakes_get_one_sentence(name, words, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=words) as told:
        bad(name, tmp_path, monkeypatch)
    assert "\n" not in str(told.value)


def test_a_split_that_a_set_does_not_have(folder, tmp_path, monkeypatch):
    hugging_face(folder, monkeypatch)
    with pytest.raises(UserError, match="hf:someone/colours with split 'valid' cannot be read"):
        open_source("hf:someone/colours", tmp_path, "valid")


def test_an_image_that_cannot_be_decoded_is_named(folder):
    (folder / "red" / "0.png").write_bytes(b"half of it")
    with pytest.raises(UserError, match="red/0.png cannot be decoded as an image, remove it"):
        open_source(str(folder)).load(8)


def test_grey_items_become_rgb():
    source = ItemSource("grey", [(Image.new("L", (4, 4), 9), 0)], ["a"], lambda item: item)
    assert source.load(0)[0].getpixel((0, 0)) == (9, 9, 9)
