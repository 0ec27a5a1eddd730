"""What makes stages of finished runs run again: the device that timed them, and weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_images import SIZE, VIT, make_folder
from tiny_text import make_net
from tiny_vit_puzzle import make_parent

import adaptive
from adaptive.core.cost import Origin
from adaptive.core.run.manifest import fingerprint
from adaptive.textscale.network import save_net

MODEL = [f"model.size={SIZE}", "model.patch=8", "model.max_patch=32"]
MODEL += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]
EVAL = ["checkpoint=null", "data.valid=null", "~baselines.tome", "~baselines.entropy"]
PLAIN = ["~baselines.tome", "~baselines.entropy", "~baselines.uniform", "data.valid=null"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory of networks, models, photographs and recipes, which overrides call HOME."""
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    save_net(make_net(), tmp_path / "net.safetensors")
    make_parent(tmp_path / "model")
    for split in ("train", "valid"):
        make_folder(tmp_path / split, each=1)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "gt_a.txt").write_text("0,0,4,0,4,2,0,2,word\n")
    (tmp_path / "exp").mkdir()
    for task in ("quadformer_demo", "textscale_demo"):
        recipe = f"# @package _global_\ndefaults: [{{override /task: {task}}}]\nname: {task}\n"
        (tmp_path / "exp" / f"own_{task}.yaml").write_text(recipe)
    return tmp_path


def marks(home, recipe, *overrides):
    """Fingerprint of each stage, whatever earlier ones make."""
    given = [each.replace("HOME", str(home)) for each in overrides]
    experiment = adaptive.load(recipe, *given, "device=cpu", config_dir=str(home))
    return {s.name: fingerprint(s.name, s.depends_on, 0, {}) for s in experiment.stages()}


def changed(one, other):
    """Stages that run again."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize(
    ("recipe", "overrides", "timed"),
    [
        ("quadformer_eval", [*MODEL, *EVAL], {"speed"}),
        (
            "quadformer_eval",
            [*MODEL, *EVAL, "num_tokens=null", "budget.latency=60%"],
            {"tokens", "speed"},
        ),
        ("quadformer_eval", [*PLAIN, "checkpoint=HOME/model", "evaluate.speed_batch=0"], set()),
        ("own_quadformer_demo", ["checkpoint=HOME/model"], {"sweep"}),
        (
            "textscale_eval",
            ["detector.path=HOME/net.safetensors", "data.images=render:2"],
            {"single", "others", "second"},
        ),
        (
            "quad_textprior",
            [
                "detector.path=HOME/net.safetensors",
                "rival.path=HOME/net.safetensors",
                "data.images=render:2",
            ],
            {"cover", "detect", "rival"},
        ),
        (
            "textscale_detect",
            ["detector.path=HOME/net.safetensors", "input=HOME/photos", "output=HOME/out"],
            {"detect"},
        ),
        ("own_textscale_demo", ["checkpoint=HOME/net.safetensors"], {"look"}),
    ],
)
def test_what_is_timed_is_timed_again_on_another_device(
    home, monkeypatch, recipe, overrides, timed
):
    found = []
    for name in ("slow", "fast"):
        monkeypatch.setattr(
            Origin, "here", lambda device="cpu", threads=1, name=name: Origin(name, "1", threads)
        )
        found.append(marks(home, recipe, *overrides))
    assert changed(*found) == timed


TEXT = "text(net='HOME/net.safetensors')"
TRAIN = ["data.root=HOME", "data.train=train", "data.valid=valid"]
WORDS = ["data.root=HOME", "data.train.rendered.images=photos", "data.valid.images=photos"]
WORDS += ["~data.train.photographs"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "depending"),
    [
        (
            "quadformer_train",
            [*MODEL, *TRAIN, "train.num_tokens=[7]", f'model.prior="{TEXT}"'],
            {"train"},
        ),
        (
            "quadformer_eval",
            [*MODEL, *EVAL, f'model.prior="{TEXT}"'],
            {"tokens", "accuracy", "speed"},
        ),
        (
            "quadformer_eval",
            [*PLAIN, "checkpoint=HOME/model", f'prior="gain * {TEXT}"'],
            {"tokens", "accuracy", "speed"},
        ),
        # Its own prior's weights are in the checkpoint.
        ("quadformer_eval", [*PLAIN, "checkpoint=HOME/model", f'model.prior="{TEXT}"'], set()),
        (
            "puzzle_vit",
            [*TRAIN, "checkpoint=HOME/model", f'prior="{TEXT}"'],
            {"images", "grid", "bought", "costs", "library"},
        ),
        ("quad_textprior", ["data.images=render:2", f'priors=[oracle,"{TEXT}"]'], {"cover"}),
        (
            "textscale_vit",
            [*WORDS, f'net.prior="{TEXT}"'],
            {"train"},
        ),
    ],
)
def test_other_weights_of_a_prior_are_another_prior(home, recipe, overrides, depending):
    before = marks(home, recipe, *overrides)
    assert marks(home, recipe, *overrides) == before
    save_net(make_net(1), home / "net.safetensors")
    assert changed(before, marks(home, recipe, *overrides)) == depending


def test_words_are_mined_again_where_another_prior_spends_the_tokens(home):
    start = [*WORDS, "net.init=HOME/net.safetensors", "detect.tokens=0.5"]
    gain = marks(home, "textscale_finetune", *start, "net.prior=gain")
    centre = marks(home, "textscale_finetune", *start, "net.prior=centre")
    assert changed(gain, centre) == {"mine", "train", "report"}
    # Weights of the prior alone: not those that the training starts from, nor what reports say.
    save_net(make_net(), home / "prior.safetensors")
    text = "net.prior=\"text(net='HOME/prior.safetensors')\""
    before = marks(home, "textscale_finetune", *start, text)
    save_net(make_net(1), home / "prior.safetensors")
    assert changed(before, marks(home, "textscale_finetune", *start, text)) == {"mine", "train"}


def test_weights_and_maps_that_a_training_starts_from_count_by_content(home):
    for name in ("start.safetensors", "maps.npy"):
        (home / name).write_bytes(b"one")
    settings = [*MODEL, *TRAIN, "train.num_tokens=[7]", "model.init=HOME/start.safetensors"]
    settings += ["data.train_maps=maps.npy", "train.distill.teacher=HOME/model"]
    depending = {
        "start.safetensors": {"train"},
        "maps.npy": {"images"},
        "model/model.safetensors": {"train"},
    }
    for name, stages in depending.items():
        before = marks(home, "quadformer_train", *settings)
        assert marks(home, "quadformer_train", *settings) == before
        (home / name).write_bytes((home / name).read_bytes() + b"more")
        assert changed(before, marks(home, "quadformer_train", *settings)) == stages, name
