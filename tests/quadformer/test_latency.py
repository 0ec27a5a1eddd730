"""Tokens that a latency buys: from shipped tables, and measured here."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny_images import SIZE, VIT
from tiny_vits import tiny_vit

import adaptive
from adaptive.core.cost import MODELS
from adaptive.core.errors import UserError
from adaptive.quadformer import Quadformer, latency, tokens_for
from adaptive.quadformer.settings import EvaluateConfig

QUICK = EvaluateConfig(seconds=0.5)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))


def _published(size: str, **options) -> Quadformer:
    with torch.device("meta"):
        vit = timm.create_model(f"vit_{size}_patch16_224", img_size=256)
    return Quadformer(vit, prior="gain", **options)


@pytest.fixture
def tiny() -> Quadformer:
    vit = tiny_vit(img_size=64, patch_size=8, embed_dim=48)
    return Quadformer(vit, prior="gain", max_patch=32).eval()


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_published_shapes_are_priced_from_shipped_tables(size):
    model = _published(size)
    assert latency.vit_shape(model) == MODELS[f"vit-{size}"]
    full = tokens_for(model, "100%", batch=64, device="h100-sxm")
    assert full.tokens == 256 and "shipped table of h100-sxm, without prior" in full.source
    for text, share in (("60%", 0.6), ("2x", 0.5), (0.8 * full.limit, 0.8)):
        found = tokens_for(model, text, batch=64, device="h100-sxm")
        assert found.limit == pytest.approx(share * full.limit)
        assert found.predicted <= found.limit and 49 <= found.tokens < 256


@pytest.mark.parametrize("options", [{"area_attention": True}, {"detail": True}])
def test_what_tables_do_not_know_is_not_priced_by_them(options):
    model = _published("small", **options)
    assert latency.vit_shape(model) is None
    with pytest.raises(UserError, match="do not hold this model at batch 8; measure on"):
        tokens_for(model, "4ms", batch=8, device="h100-sxm")


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "deit3_small_patch16_224"])
def test_other_blocks_have_no_published_shape(name):
    model = Quadformer(tiny_vit(name), prior="gain", max_patch=28 if "14" in name else 32)
    assert latency.vit_shape(model) is None


def test_other_models_are_measured_once(tiny, monkeypatch):
    whole = tokens_for(tiny, "100%", batch=2, config=QUICK)
    assert whole.source == "measured here"
    again = tokens_for(tiny, "100%", batch=2, config=QUICK)
    assert again.tokens == whole.tokens == 64
    assert again.predicted == pytest.approx(whole.predicted, rel=1e-3)
    monkeypatch.setattr(Quadformer, "forward", None)  # what was measured is not measured again
    more = tokens_for(tiny, "150%", batch=2, config=QUICK)
    assert more.limit == pytest.approx(1.5 * whole.limit, rel=1e-3)
    assert tokens_for(tiny, 60.0, batch=2, config=QUICK).tokens == 64
    with pytest.raises(TypeError):
        tokens_for(tiny, "100%", batch=3, config=QUICK)


def test_a_model_is_known_by_its_structure(tiny):
    name = latency.model_key(tiny)
    with torch.no_grad():
        tiny.vit.head.weight.zero_()
    assert latency.model_key(tiny) == name
    others = [Quadformer(tiny_vit(img_size=64, patch_size=8), prior="gain", max_patch=32)]
    vit = tiny_vit(img_size=64, patch_size=8, embed_dim=48)
    others += [Quadformer(vit, prior=prior, max_patch=32) for prior in ("centre", "feature")]
    others += [Quadformer(vit, prior="gain", max_patch=16)]
    others += [Quadformer(vit, prior="gain", max_patch=32, area_attention=True)]
    assert len({name, *map(latency.model_key, others)}) == 1 + len(others)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"latency": "1ns"}, r"budget.latency=1 ns is too little .* at batch 2: \d+ of them take"),
        ({"latency": ">=4ms"}, "budget.latency>=4ms asks for no less than a latency"),
        ({"latency": "4 tokens"}, "budget.latency='4 tokens' has the unknown unit"),
        ({"latency": "4ms", "batch": 0}, "batch=0 must be at least 1"),
        ({"latency": "4ms", "device": "cuda"}, "device=cuda, but the model is on cpu: move it"),
        ({"latency": "4ms", "device": "h100"}, "device=h100, .* whose tables ship: h100-sxm"),
    ],
)
def test_mistakes_get_one_sentence(tiny, given, words):
    with pytest.raises(UserError, match=words):
        tokens_for(tiny, **{"batch": 2, "config": QUICK} | given)


@pytest.mark.parametrize(
    "asked, here, same",
    [("cuda", "cuda:1", True), ("cuda:0", "cuda:1", False), ("cpu", "cpu", True)],
)
def test_devices_by_name(asked, here, same):
    assert latency._same_device(asked, here) == same


def test_an_evaluation_says_what_was_promised_and_what_came(tmp_path):
    model = [f"model.size={SIZE}", "model.patch=8", "model.max_patch=16", "model.prior=gain"]
    model += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]
    quick = ["evaluate.seconds=0.5", "evaluate.speed_batch=2", "device=cpu", "data.valid=null"]
    off = ["checkpoint=null", "~baselines.uniform", "~baselines.tome", "~baselines.entropy"]
    given = ["num_tokens=null", "budget.latency=400%"]
    result = adaptive.load("quadformer_eval", *model, *quick, *off, *given).run(tmp_path / "run")
    summary = result.summary
    assert summary["tokens"] == 16
    assert summary["latency.measured"] == pytest.approx(2 / summary["images_per_second"])
    expected = summary["latency.predicted"] / summary["latency.measured"] - 1
    assert summary["latency.error"] == pytest.approx(expected)
    assert summary["latency.predicted"] <= summary["latency.limit"]
    assert "400% buys 16 tokens at batch 2" in result.report.read_text()
