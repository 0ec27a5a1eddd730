"""The demonstration on a model that is trained here for a few steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_images import SIZE, VIT, make_folder

import adaptive
from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.quadformer.config import PHOTOS
from adaptive.quadformer.data.photos import centre, photo, views
from adaptive.quadformer.demo.look import spoken
from adaptive.quadformer.models import known_accuracy, load_trained

RECIPE = "# @package _global_\ndefaults: [{override /task: quadformer_demo}]\nname: demo\n"
MODEL = [f"model.size={SIZE}", "model.patch=8", "model.max_patch=16", "model.prior=gain"]
MODEL += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]


def train(root, *more):
    make_folder(root / "train", each=4)
    make_folder(root / "valid", each=2)
    small = ["train.epochs=2", "train.batch=6", "train.num_tokens=[7,16]", "train.warmup_epochs=1"]
    data = [f"data.root={root}", "data.train=train", "data.valid=valid", "device=cpu"]
    return adaptive.load("quadformer_train", *MODEL, *data, *small, *more).run(root / "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTIVE_CACHE", str(root / "cache"))
        return train(root)


def demo(tmp_path, checkpoint, *more):
    (tmp_path / "exp").mkdir(exist_ok=True)
    (tmp_path / "exp" / "demo.yaml").write_text(RECIPE)
    given = [f"checkpoint={checkpoint}", "num_tokens=[7,10]", "photos=[coffee,chelsea]"]
    quick = ["seconds=0.3", "batch=2", "device=cpu"]
    return adaptive.load("demo", *given, *quick, *more, config_dir=str(tmp_path))


def test_what_leaves_a_training_is_in_half_precision_and_measured(trained):
    home = trained.dir / "artifacts" / "export"
    assert {file.name for file in home.iterdir()} == {*zoo.QUADFORMER.files, "manifest.json"}
    about = json.loads((home / "accuracy.json").read_text())
    assert about["images"] == 6 and about["data"] == "valid"
    assert about["accuracy"] == {n: trained.summary[f"accuracy.{n}"] for n in ("7", "16")}
    assert known_accuracy(trained.dir) == known_accuracy(home) == about
    kept, exported = (load_trained(home).model.vit for home in (trained.dir, home))
    weight = exported.head.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, kept.head.weight.half().float())
    assert not torch.equal(weight, kept.head.weight)


def test_the_demonstration_end_to_end(trained, tmp_path):
    result = demo(tmp_path, trained.dir / "artifacts" / "export").run(tmp_path / "run")
    each = {"agreement", "gmacs", "images_per_second", "speedup"}
    keys = {f"{key}.{n}" for key in each for n in (7, 10, 16)} | {"accuracy.7", "accuracy.16"}
    assert set(result.summary) == keys | {"photos", "views"}
    assert result.summary["photos"] == 2 and result.summary["views"] == 2 * 2 * 11
    assert result.summary["agreement.16"] == 100 and result.summary["speedup.16"] == 1
    assert 0 <= result.summary["agreement.7"] <= 100
    assert result.summary["gmacs.7"] < result.summary["gmacs.10"] < result.summary["gmacs.16"]
    assert result.summary["accuracy.7"] == trained.summary["accuracy.7"]
    page = result.report.read_text()
    assert page.count("<figure>") == 3  # mosaics, prior, accuracy against speed
    assert "coffee, 7" in page and "chelsea, 10" in page and "6 images of <code>valid" in page
    assert all(f"{n} tokens</th>" in page for n in (7, 10, 16))


def test_a_model_that_nobody_measured_has_no_accuracy(trained, tmp_path):
    home = tmp_path / "bare"
    home.mkdir()
    for name in ("model.json", "model.safetensors"):
        (home / name).write_bytes((trained.dir / "artifacts" / "export" / name).read_bytes())
    result = demo(tmp_path, home).run(tmp_path / "run")
    assert not [key for key in result.summary if key.startswith("accuracy")]
    assert result.report.read_text().count("<figure>") == 2


def test_a_model_of_the_zoo_by_its_name(trained, tmp_path, monkeypatch):
    registry = type(zoo.MODELS)("zoo model")
    registry.register("tiny")(zoo.Model(zoo.QUADFORMER, "quadformer_train"))
    monkeypatch.setattr(zoo, "MODELS", registry)
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "tiny").symlink_to(trained.dir / "artifacts" / "export")
    found, plain = load_trained("zoo:tiny"), load_trained(trained.dir / "artifacts" / "export")
    assert torch.equal(found.model.vit.head.weight, plain.model.vit.head.weight)
    with pytest.raises(UserError, match="unknown zoo model 'tinny'.*did you mean 'tiny'"):
        demo(tmp_path, "zoo:tinny").run(tmp_path / "run")


@pytest.mark.parametrize(
    "override, words",
    [
        ("photos=[mandrill]", r"photos=\['mandrill'\]: choose at least one of astronaut"),
        ("photos=[]", r"photos=\[\]: choose at least one"),
        ("num_tokens=[0]", r"num_tokens=\[0\] must list"),
        ("batch=0", r"^batch=0 must be above 0"),
    ],
)
def test_settings_that_mean_nothing(tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        demo(tmp_path, "anywhere", override)


def test_budgets_and_models_that_there_are_not(trained, tmp_path):
    with pytest.raises(UserError, match="num_tokens=8 is not feasible"):
        demo(tmp_path, trained.dir, "num_tokens=[8]").run(tmp_path / "run")
    with pytest.raises(UserError, match=r"there is no model\.json in it"):
        demo(tmp_path, tmp_path / "nowhere").run(tmp_path / "run")
    other = tmp_path / "uniform"
    other.mkdir()
    about = json.loads((trained.dir / "artifacts" / "export" / "model.json").read_text())
    about["model"]["kind"] = "uniform"
    (other / "model.json").write_text(json.dumps(about))
    weights = trained.dir / "artifacts" / "export" / "model.safetensors"
    (other / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(UserError, match="is of the baseline uniform: name a run with"):
        demo(tmp_path, other).run(tmp_path / "run")


@pytest.mark.parametrize("name", PHOTOS)
def test_photographs_need_no_network_and_have_different_views(name, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    image = photo(name)
    assert image.mode == "RGB" and min(image.size) >= 300
    view_V3HW = views(image, 56)
    assert view_V3HW.shape == (22, 3, 56, 56)
    assert len(np.unique(view_V3HW.reshape(22, -1), axis=0)) == 22
    # Cropped before it is resized, not after: borders and rounding differ.
    assert np.abs(view_V3HW[0].astype(int) - centre(image, 56)).mean() < 12
    assert (view_V3HW[1] == view_V3HW[0][:, :, ::-1]).all()


def test_classes_in_words():
    assert spoken("n01440764") == "tench" and spoken("red") == "red"
