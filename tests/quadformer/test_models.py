"""Models by their settings, and trained ones by their directory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tiny_images import CLASSES, SIZE, VIT

from adaptive.core.errors import UserError
from adaptive.core.normalise import Normalise
from adaptive.core.prior import CentrePrior, EarlyPrior
from adaptive.quadformer.models import build_model, build_vit, load_trained, save_trained
from adaptive.quadformer.settings import ModelConfig

CONFIG = ModelConfig(**VIT, prior="centre", settings={})


def test_a_trained_model_comes_back(tmp_path):
    parts = {name: build_model(CONFIG, 3) for name in ("model", "ema")}
    save_trained(tmp_path / "artifacts" / "train", CONFIG, CLASSES, parts)
    image_BCHW = torch.rand(2, 3, SIZE, SIZE)
    for directory in (tmp_path, tmp_path / "artifacts" / "train"):
        for name, part in parts.items():
            found = load_trained(directory, name)
            assert torch.equal(found.model(image_BCHW), part.eval()(image_BCHW))
            assert not found.model.training and found.classes == CLASSES
            assert found.config == CONFIG and isinstance(found.model.prior, CentrePrior)


def test_without_averaged_weights_the_last_ones_are_taken(tmp_path):
    model = build_model(CONFIG, 3)
    save_trained(tmp_path, CONFIG, CLASSES, {"model": model})
    found = load_trained(tmp_path, "ema").model
    assert torch.equal(found.vit.head.weight, model.vit.head.weight)


def test_a_directory_without_weights_is_told(tmp_path):
    save_trained(tmp_path, CONFIG, CLASSES, {})
    with pytest.raises(UserError, match="holds no weights beside its model.json"):
        load_trained(tmp_path)


def test_weights_can_be_stored_in_half_precision(tmp_path):
    model = build_model(CONFIG, 3)
    model.register_buffer("count", torch.tensor(70_000))  # a whole number, too large for a half
    save_trained(tmp_path, CONFIG, CLASSES, {"model": model}, torch.float16)
    state = load_file(tmp_path / "model.safetensors")
    assert state["vit.head.weight"].dtype == torch.float16 and int(state["count"]) == 70_000


def test_a_vits_weights_go_into_another_wrapper(tmp_path):
    model = build_model(CONFIG, 3)
    model.more = torch.nn.Linear(2, 2)  # of this wrapper alone
    save_trained(tmp_path, CONFIG, CLASSES, {"ema": model})
    found = load_trained(tmp_path, kind="tome")
    assert found.config.kind == "tome" and found.config.settings == {}
    assert torch.equal(found.model.vit.head.weight, model.vit.head.weight)
    other = load_trained(tmp_path, kind="uniform", prior="gain").config
    assert other.prior == "gain"


@pytest.mark.parametrize(
    "trained, wanted",
    [
        ("learned", "learned"),
        ("learned", "centre"),
        ("centre", "learned"),
        ("learned(width=8)", "learned"),
        ("learned", "feature"),
        ("centre", "early"),
        ("early", "early"),
        ("early", "0.5*early + centre"),
    ],
)
def test_a_model_can_be_given_another_prior(tmp_path, trained, wanted):
    """Whether or not they have weights; with the one that it has, it is the same model."""
    model = build_model(replace(CONFIG, prior=trained), 3).eval()
    with torch.no_grad():
        for weight in model.parameters():  # as training, also of an oracle's map, would
            weight.add_(0.1 * torch.randn_like(weight))
    save_trained(tmp_path, replace(CONFIG, prior=trained), CLASSES, {"ema": model})
    found = load_trained(tmp_path, prior=wanted)
    assert found.config.prior == wanted
    image_BCHW = torch.rand(4, 3, SIZE, SIZE)
    leaves = model.select(image_BCHW, 7)
    assert torch.equal(found.model(image_BCHW, leaves=leaves), model(image_BCHW, leaves=leaves))
    score_BS = found.model.score(image_BCHW)
    if wanted == trained:
        assert torch.equal(score_BS, model.score(image_BCHW))
    elif wanted == "early":  # of the ViT that was trained
        expected = EarlyPrior(vit=model.vit)(model.pixels(image_BCHW), model.geometry)
        assert torch.allclose(score_BS, expected)
    assert not found.model.prior.training
    assert not any(weight.requires_grad for weight in found.model.prior.parameters())


def test_a_vanilla_vits_own_first_block_is_the_prior_of_another_wrapper(tmp_path):
    model = build_model(replace(CONFIG, kind="uniform"), 3)
    save_trained(tmp_path, replace(CONFIG, kind="uniform"), CLASSES, {"ema": model})
    found = load_trained(tmp_path, kind="quadformer", prior="early").model
    assert torch.equal(found.prior.projection.weight, model.vit.patch_embed.proj.weight)


def test_a_vanilla_vits_weights_are_a_start(tmp_path):
    """Its position table is resampled to another grid, and its head left where classes differ."""
    vit = build_vit(CONFIG, 3)
    path = tmp_path / "vit.safetensors"
    save_file(vit.state_dict(), path)
    same = build_vit(replace(CONFIG, init=str(path)), 3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(same.state_dict().values(), vit.state_dict().values(), strict=True)
    )
    larger = build_vit(replace(CONFIG, init=str(path), size=2 * SIZE), 5)
    assert larger.head.weight.shape[0] == 5
    assert torch.equal(larger.blocks[0].mlp.fc1.weight, vit.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vit": "vit_tinny_patch16_224"}, "model.vit: timm has no model 'vit_tinny_patch16_224'"),
        ({"vit": "resnet10t"}, "model.vit: resnet10t does not take .*img_size"),
        ({"init": "none.safetensors"}, "model.init=none.safetensors: there is no such file"),
        ({"init": "narrow"}, "weights of .*narrow.* do not fit the model"),
    ],
)
def test_mistakes_get_one_sentence(changes, words, tmp_path):
    if changes.get("init") == "narrow":
        narrow = {**VIT["vit_settings"], "embed_dim": 12}
        path = tmp_path / "narrow.safetensors"
        save_file(build_vit(replace(CONFIG, vit_settings=narrow), 3).state_dict(), path)
        changes = {"init": str(path)}
    with pytest.raises(UserError, match=words) as told:
        build_model(replace(CONFIG, **changes), 3)
    assert "\n" not in str(told.value)


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(UserError, match="checkpoint=.*name the directory of a finished"):
        load_trained(tmp_path)


def test_normalisation_is_timms_and_can_be_undone():
    model = build_model(CONFIG, 3)
    data = timm.data.resolve_model_data_config(model.vit)
    image_BCHW = torch.rand(2, 3, 4, 4)
    normalise = Normalise.of(model, "cpu")
    found = normalise(image_BCHW)
    assert torch.allclose(found[:, 1], (image_BCHW[:, 1] - data["mean"][1]) / data["std"][1])
    assert torch.allclose(normalise.undo(found), image_BCHW, atol=1e-6)
