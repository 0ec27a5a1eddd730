"""What timm's users do with a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.optim import create_optimizer_v2
from tiny_vits import images, tiny_vit, variance

import adaptive.quadformer
from adaptive.core.errors import UserError
from adaptive.quadformer import Quadformer
from adaptive.quadformer.entrypoints import OPTIONS

EXACT = {"rtol": 1e-5, "atol": 1e-5}


def _create(name: str = "quadformer_tiny_patch16_256", **settings) -> Quadformer:
    torch.manual_seed(0)
    return timm.create_model(name, **{"prior": variance, "depth": 2} | settings).eval()


@pytest.mark.parametrize("name", timm.list_models("quadformer_*"))
def test_every_name_makes_its_model(name):
    model = _create(name, num_tokens=100, num_classes=5, drop_path_rate=0.1, embed_dim=96)
    _, _, patch, side = name.split("_")
    assert model.img_size == (int(side), int(side)) and f"patch{model.patch_size}" == patch
    assert len(model.geometry.sides) == 3 and model.num_tokens == 100
    assert model(images(model)).shape == (2, 5)
    assert model.vit.blocks[1].drop_path1.drop_prob == pytest.approx(0.1)


def test_there_are_names():
    assert len(timm.list_models("quadformer_*")) == 6


def test_options_are_those_of_the_model():
    import inspect

    assert set(OPTIONS) == set(inspect.signature(Quadformer).parameters) - {"vit"}


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("import adaptive.quadformer, timm", marks=pytest.mark.slow),
        pytest.param("import timm, adaptive.quadformer", marks=pytest.mark.slow),
        pytest.param(
            "from timm.models import create_model; import timm, adaptive", marks=pytest.mark.slow
        ),
    ],
)
def test_names_are_there_in_a_fresh_process(lines):
    code = f"{lines}; print(timm.is_model('quadformer_small_patch16_256'))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "True"


def test_importing_the_package_imports_neither_torch_nor_timm():
    code = "import adaptive.quadformer, sys; print({'torch', 'timm'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        adaptive.quadformer.nothing  # noqa: B018


def test_priors_by_description():
    model = _create(num_tokens=100, prior="gain")
    assert model(images(model)).shape == (2, 1000)
    with pytest.raises(UserError, match="unknown prior"):
        _create(prior="nothing_of_the_kind")


def test_data_configuration():
    config = resolve_model_data_config(_create())
    assert config["input_size"] == (3, 256, 256) and config["mean"] == (0.5, 0.5, 0.5)
    vit = tiny_vit("vit_base_patch16_clip_224")
    clip = resolve_model_data_config(Quadformer(vit, prior=variance, max_patch=32))
    assert clip["mean"] == pytest.approx(vit.pretrained_cfg["mean"]) and clip["mean"][0] < 0.49


def test_every_parameter_belongs_to_a_layer():
    model = _create(detail=True, scale_embedding=True)
    groups = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    scale = {}
    for group in groups.param_groups:
        for parameter in group["params"]:
            scale[id(parameter)] = (group["lr_scale"], group["weight_decay"])
    named = dict(model.named_parameters())
    found = {name: scale[id(parameter)] for name, parameter in named.items()}
    stem = ["patch_embed.proj.weight", "cls_token", "pos_embed"]
    assert {found[f"vit.{name}"][0] for name in stem} == {0.5**3}
    assert found["tokenizer.detail.out.weight"][0] == found["tokenizer.scale_embed"][0] == 0.5**3
    assert found["vit.blocks.0.attn.qkv.weight"] == (0.5**2, 0.1)
    assert found["vit.blocks.1.mlp.fc1.weight"] == (0.5, 0.1)
    assert found["vit.head.weight"] == (1.0, 0.1)
    spared = ["vit.pos_embed", "vit.cls_token", "tokenizer.scale_embed"]
    assert {found[name][1] for name in spared} == {0.0}


@pytest.mark.parametrize("coarse", [False, True])
def test_groups_of_all_kinds(coarse):
    for name in ("deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"):
        model = Quadformer(tiny_vit(name), prior=variance, max_patch=28 if "14" in name else 32)
        layers = timm.models.group_parameters(model, model.group_matcher(coarse), reverse=True)
        assert layers["vit.cls_token"] < layers["vit.blocks.0.norm1.weight"]
        assert layers["vit.blocks.0.norm1.weight"] < layers["vit.blocks.1.norm1.weight"]
        assert layers["vit.blocks.1.norm1.weight"] < layers["vit.head.weight"]


def test_another_head():
    model = _create(num_tokens=100)
    model.reset_classifier(3)
    assert model.num_classes == 3 and model(images(model)).shape == (2, 3)
    assert model.get_classifier().out_features == 3
    model.reset_classifier(0, "avg")
    assert model.global_pool == "avg" and model(images(model)).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(images(model)).shape == (2, 101, model.embed_dim)
    leaves = adaptive.core.solvers.quadtree.batch_leaves(
        model.score(images(model)), model.geometry, 200
    )
    with pytest.raises(UserError, match="without pooling"):
        model(images(model), leaves=leaves)


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
def test_pools(pool):
    model = _create(global_pool=pool, num_tokens=100)
    x = model.forward_features(images(model))[:, model.num_prefix_tokens :]
    owners = model.select(images(model)).owners()
    cells = x.gather(1, owners[..., None].expand(-1, -1, x.shape[2]))
    mean, most = cells.mean(1), cells.amax(1)
    pooled = {"avg": mean, "max": most, "avgmax": (mean + most) / 2}[pool]
    expected = model.vit.head(model.vit.fc_norm(pooled))
    torch.testing.assert_close(model(images(model)), expected, **EXACT)


def test_another_size_of_images():
    for name in ("vit_tiny_patch16_224", "eva02_tiny_patch14_224"):
        vit = tiny_vit(name)
        patch = vit.patch_embed.patch_size[0]
        model = Quadformer(vit, prior=variance, max_patch=2 * patch, num_tokens=97)
        size = 8 * patch, 12 * patch
        model.set_input_size(size)
        other = tiny_vit(name)
        other.set_input_size(size)
        assert model.geometry.size == size and model.num_tokens == 96  # all there are
        image = images(model)
        torch.testing.assert_close(model(image), other(image), **EXACT)
        assert model(image, 48).shape == (2, 7)
        with pytest.raises(UserError, match="not tiled"):
            model.set_input_size(9 * patch)
        assert model.geometry.size == model.img_size == size


def test_checkpoints(tmp_path):
    vit = tiny_vit()
    model = Quadformer(vit, prior=variance, max_patch=32, detail=True)
    image, plain = images(model), tiny_vit(num_classes=7).state_dict()
    expected = model(image)
    torch.nn.init.zeros_(vit.head.weight)
    model.load_state_dict(plain)  # a plain ViT's names
    torch.testing.assert_close(model(image), expected)
    large = Quadformer(tiny_vit(img_size=256), prior=variance)
    large.load_state_dict(plain)  # and another grid
    resampled = tiny_vit()
    resampled.set_input_size((256, 256))
    torch.testing.assert_close(large(images(large)), resampled(images(large)), **EXACT)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again = timm.models.load_checkpoint
    torch.nn.init.zeros_(vit.head.weight)
    again(model, str(tmp_path / "model.pt"))
    torch.testing.assert_close(model(image), expected)


def test_a_checkpoint_of_another_width():
    model = _create()
    with pytest.raises(UserError, match=r"vit\.cls_token is of shape \(1, 1, 96\), the model's"):
        model.load_state_dict(tiny_vit(embed_dim=96).state_dict())


def test_weights_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="weights for vit_tiny_patch16_224 could not be loaded"):
        timm.create_model("quadformer_tiny_patch16_256", pretrained=True, prior=variance)


def test_create():
    model = adaptive.quadformer.create(
        prior=variance, num_tokens=100, vit_options={"depth": 1}, detail=True
    )
    assert model.img_size == (224, 224) and model.patch_size == 14 and model.num_classes == 10
    assert model(images(model)).shape == (2, 10) and model.tokenizer.detail is not None
    with pytest.raises(UserError, match="timm has no model 'vit_gigantic'"):
        adaptive.quadformer.create("vit_gigantic")
    with pytest.raises(UserError, match="choose a plain timm ViT"):
        adaptive.quadformer.create("resnet18")
