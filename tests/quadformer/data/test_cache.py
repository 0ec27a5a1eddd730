"""Images are decoded once, to squares of the size that the model sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import CLASSES, SIZE, make_folder, make_tar

from adaptive.core.errors import UserError
from adaptive.quadformer.data import ItemSource, decode, load_images, open_source
from adaptive.quadformer.data.cache import square
from adaptive.quadformer.settings import ImageData


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "valid", each=2)
    return ImageData(root=str(tmp_path), train="train", valid="valid", workers=2)


@pytest.mark.parametrize("memory", ["device", "stream", "auto"])
def test_batches_are_the_images_wherever_they_wait(data, tmp_path, memory):
    data.memory = memory
    images = load_images(data, "train", SIZE, "cpu")
    pixel_B3HW, label_B = images.batch(torch.tensor([5, 0]))
    assert isinstance(images.pixels, np.ndarray) == (memory == "stream")
    files = sorted((tmp_path / "train").rglob("*.png"))
    for pixels, label, file in zip(pixel_B3HW, label_B, (files[5], files[0]), strict=True):
        with Image.open(file) as image:
            assert (pixels.permute(1, 2, 0).numpy() == np.asarray(image)).all()
        assert images.classes[label] == file.parent.name
    assert images.maps(torch.tensor([0])) is None


def test_decoding_happens_once(data, tmp_path):
    """An archive and a folder of the same images too are two caches."""
    source = open_source("train", data.root)
    seen = []

    def track(items, total):
        seen.append(total)
        return items

    assert decode(source, SIZE, track=track) == decode(source, SIZE, track=track)
    assert decode(source, SIZE // 2, track=track) != decode(source, SIZE, track=track)
    assert seen == [12, 12]
    archive = make_tar(tmp_path / "train.tar", tmp_path / "train")
    found = load_images(ImageData(train=str(archive)), "train", SIZE, "cpu")
    assert torch.equal(found.pixels, load_images(data, "train", SIZE, "cpu").pixels)


def test_a_decoding_that_failed_leaves_nothing(data, tmp_path):
    broken = tmp_path / "train" / "blue" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"half of it")
    with pytest.raises(UserError, match="blue/1.png"):
        load_images(data, "train", SIZE, "cpu")
    broken.write_bytes(whole)
    assert len(load_images(data, "train", SIZE, "cpu")) == 12
    kept = [p for p in (tmp_path / "cache" / "images").iterdir() if p.is_dir()]
    assert len(kept) == 1


@pytest.mark.parametrize("width, height", [(64, 32), (32, 64), (48, 48), (20, 50), (32, 32)])
def test_squares_are_centres(width, height):
    """A gradient's middle stays the middle, whatever the sides."""
    ramp = np.linspace(0, 200, width)[None, :, None] + np.zeros((height, 1, 3))
    pixels = np.asarray(square(Image.fromarray(ramp.astype(np.uint8)), 32)).astype(float)
    assert pixels.shape == (32, 32, 3)
    assert abs(pixels.mean() - 100) < 2
    step = 200 / width * min(width, height) / 32
    assert np.allclose(np.diff(pixels[16, 4:-4, 0]).mean(), step, rtol=0.1)


def test_labels_are_numbers_of_the_models_classes(data, tmp_path):
    images = load_images(data, "valid", SIZE, "cpu", classes=["red", "green", "grey", "blue"])
    assert images.label_N.tolist() == [3, 3, 1, 1, 0, 0]
    with pytest.raises(UserError, match="the model does not know class 'green'"):
        load_images(data, "valid", SIZE, "cpu", classes=["red", "blue"])


def test_labels_outside_the_classes_are_refused():
    items = [(Image.new("RGB", (8, 8)), -1)]
    source = ItemSource("unlabelled[test]", items, CLASSES, lambda item: item)
    with pytest.raises(UserError, match="choose a split that is labelled"):
        decode(source, 8)


@pytest.mark.parametrize("memory", ["device", "stream"])
def test_maps_belong_to_their_images(data, tmp_path, memory):
    data.memory, data.train_maps = memory, "maps.npy"
    maps = np.arange(12 * 4, dtype=np.float32).reshape(12, 2, 2)
    np.save(tmp_path / "maps.npy", maps)
    found = load_images(data, "train", SIZE, "cpu").maps(torch.tensor([7, 2]))
    assert found is not None and (found[:, 0].numpy() == maps[[7, 2]]).all()
    assert load_images(data, "valid", SIZE, "cpu").map_Nhw is None
    np.save(tmp_path / "maps.npy", maps[:5])
    with pytest.raises(UserError, match="not one float map .* for each of 12 images"):
        load_images(data, "train", SIZE, "cpu")
    data.train_maps = "none.npy"
    with pytest.raises(UserError, match="data.train_maps: cannot read"):
        load_images(data, "train", SIZE, "cpu")


@pytest.mark.data
def test_imagenette(data_dir):
    """A few images of each class, as they are in the archive."""
    source = open_source("imagenette224/val.tar", data_dir)
    assert len(source) == 2000 and len(source.classes) == 10
    some = ItemSource("some", range(0, 2000, 97), source.classes, source.load)
    home = decode(some, 224)
    labels = np.load(home / "labels.npy")
    assert set(labels) == set(range(10))
    pixels = np.load(home / "pixels.npy", mmap_mode="r")
    image, label = source.load(97)
    assert labels[1] == label
    assert (pixels[1].transpose(1, 2, 0) == np.asarray(image)).all()


@pytest.mark.data
def test_imagenette_in_webp(data_dir):
    source = open_source("imagenette224/train.tar", data_dir)
    assert len(source) == 9469 and source.load(5000)[0].size == (224, 224)
