"""The demonstration with a tiny network that was never trained, which sees text everywhere."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tiny_text import make_net

import adaptive
from adaptive import zoo
from adaptive.core.errors import UserError
from adaptive.textscale.config import DEMO_IMAGES
from adaptive.textscale.demo.images import demo_image
from adaptive.textscale.network import load_net, save_net
from adaptive.textscale.network.net import TEXT

RECIPE = "# @package _global_\ndefaults: [{override /task: textscale_demo}]\nname: demo\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network whose maps vary enough with the image to show some regions."""
    net = make_net()
    last = net.head[-1]
    torch.nn.init.normal_(last.weight[TEXT], std=0.5)
    last.bias.data[TEXT] = 0.0
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_net(net, path, half=True)
    return path


def demo(tmp_path, checkpoint, *more):
    (tmp_path / "exp").mkdir(exist_ok=True)
    (tmp_path / "exp" / "demo.yaml").write_text(RECIPE)
    given = [f"checkpoint={checkpoint}", "threads=1", "device=cpu"]
    return adaptive.load("demo", *given, *more, config_dir=str(tmp_path))


def test_end_to_end(checkpoint, tmp_path):
    result = demo(tmp_path, checkpoint).run(tmp_path / "run")
    summary = result.summary
    for name in DEMO_IMAGES:
        for way in ("adaptive", "single"):
            assert summary[f"{name}.{way}.megapixels"] > 0 and summary[f"{name}.{way}.ms"] > 0
            assert (f"{name}.{way}.f" in summary) == (name == "scene")
        H, W = demo_image(name)[0].shape[:2]
        sides = (-(-side // 32) * 32 for side in (H, W))
        assert summary[f"{name}.single.megapixels"] == pytest.approx(np.prod(list(sides)) / 1e6)
    page = result.report.read_text()
    assert page.count("<h2") == len(DEMO_IMAGES) + 2
    assert page.count("The prior: bright") >= 3 and "both passes found" in page


def test_a_budget_is_kept_and_canvases_are_shown(checkpoint, tmp_path):
    given = ["images=[page]", "budget.pixels=150000"]
    result = demo(tmp_path, checkpoint, *given).run(tmp_path / "run")
    assert 0 < result.summary["page.adaptive.megapixels"] <= 0.15
    assert result.summary["page.regions"] > 0
    page = result.report.read_text()
    size = re.search(r"Packed canvas 1 of \d+, (\d+) x (\d+)", page)
    assert size is not None and int(size[1]) * int(size[2]) < 150_000


def test_a_network_of_the_zoo_by_its_name(checkpoint, tmp_path, monkeypatch):
    registry = type(zoo.MODELS)("zoo model")
    registry.register("tiny")(zoo.Model(zoo.TEXTSCALE, "textscale_finetune"))
    monkeypatch.setattr(zoo, "MODELS", registry)
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(UserError, match=r"zoo:tiny lacks net.safetensors.*textscale_finetune"):
        demo(tmp_path, "zoo:tiny").stages()
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "net.safetensors").write_bytes(checkpoint.read_bytes())
    found, plain = load_net("zoo:tiny").state_dict(), load_net(checkpoint).state_dict()
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    detect = adaptive.load("textscale_eval", "detector.path=zoo:tny")
    with pytest.raises(UserError, match="unknown zoo model 'tny'.*did you mean 'tiny'"):
        detect.stages()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("images=[poster]", r"images=\['poster'\]: choose at least one of page"),
        ("images=[]", r"images=\[\]: choose at least one"),
        ("threads=0", "threads=0 must be above 0"),
        ("adapt.pass1_share=0", "adapt.pass1_share=0"),
    ],
)
def test_settings_that_mean_nothing(checkpoint, tmp_path, override, words):
    with pytest.raises(UserError, match=words):
        demo(tmp_path, checkpoint, override)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="there are no weights"):
        demo(tmp_path, tmp_path / "nowhere").stages()


@pytest.mark.parametrize("name", DEMO_IMAGES)
def test_images_need_no_network(name, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    image_HW3, words = demo_image(name)
    assert image_HW3.dtype == np.uint8 and image_HW3.shape[2] == 3
    assert (words is not None) == (name == "scene")
    if words is not None:
        assert words.care_N.sum() >= 10
