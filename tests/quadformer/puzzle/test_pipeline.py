"""A run end to end on a folder of tiny images, its resume, and mistakes told in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_images import SIZE, make_folder
from tiny_vit_puzzle import QUICK, make_inputs, make_parent

import adaptive
from adaptive.core.errors import UserError
from adaptive.quadformer.models import build_model

KINDS = ("joint", "architecture")
EACH = ("latency.predicted", "latency.measured", "num_tokens", "speedup")


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    return [*make_inputs(tmp_path), *QUICK]


def kept(text: str) -> set[str]:
    """The stages that a run found done."""
    return {line[1:].partition("]")[0] for line in text.splitlines() if "done before" in line}


@pytest.mark.slow
def test_end_to_end(data, tmp_path, capsys):
    home = tmp_path / "run"
    result = adaptive.load("puzzle_vit", *data).run(home)
    summary = result.summary
    for kind in KINDS:
        for name in EACH:
            assert summary[f"{kind}.{name}"] > 0
        assert 0 <= summary[f"{kind}.accuracy"] <= 100
        assert summary[f"{kind}.latency.predicted"] <= summary["latency.limit"] * (1 + 1e-6)
    assert "tokens.accuracy" in summary or summary["tokens.num_tokens"] is None
    losses = [summary[f"{kind}.loss.predicted"] for kind in (*KINDS, "tokens")]
    assert losses[0] == min(loss for loss in losses if loss is not None)
    assert summary["library.variants"] == 10  # 2 x (2 of 3 heads, 3 of 96 channels)
    assert summary["library.loss"] <= summary["library.loss_start"]
    assert not list(home.rglob("checkpoint.safetensors"))  # of trainings
    page = result.report.read_text()
    assert "One budget, three ways" in page and page.count("<figure>") >= 6

    # The answers load, and evaluate to what the run says of them.
    tokens = summary["joint.num_tokens"]
    joint = home / "artifacts" / "children" / "joint"
    about = json.loads((joint / "about.json").read_text())
    assert about["num_tokens"] == tokens and len(about["blocks"]) == 2
    given = [f"checkpoint={joint}", f"num_tokens={tokens}", f"data.root={tmp_path}"]
    given += ["data.valid=valid", "device=cpu", "evaluate.speed_batch=0"]
    plain = ["~baselines.uniform", "~baselines.tome", "~baselines.entropy"]
    again = adaptive.load("quadformer_eval", *given, *plain).run(tmp_path / "eval")
    assert again.summary["accuracy"] == pytest.approx(summary["joint.accuracy"])
    assert again.summary["gmacs"] == pytest.approx(summary["joint.gmacs"])

    # Nothing is done twice; another budget keeps the library and the scores.
    capsys.readouterr()
    same = adaptive.load("puzzle_vit", *data).run(home)
    stages = {stage.name for stage in adaptive.load("puzzle_vit", *data).stages()}
    assert same.summary == summary and kept(capsys.readouterr().err) == stages
    other = [*data[:-1], "budget.latency=0.9x", "num_tokens=[7,10]", "gkd.epochs=0"]
    found = adaptive.load("puzzle_vit", *other).run(home).summary
    assert kept(capsys.readouterr().err) == {"images", "grid", "library", "scores"}
    assert found["joint.loss.predicted"] <= summary["joint.loss.predicted"] + 1e-9
    assert found["joint.accuracy"] == found["joint.accuracy.before"]


def refused(data, *more) -> str:
    with pytest.raises(UserError) as error:
        adaptive.load("puzzle_vit", *data, *more).stages()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("checkpoint=null", "checkpoint=null: name the directory of a finished quadformer_train"),
        ("data.train=null", "data.train is empty: name a folder"),
        ("data.valid=null", "data.valid is empty: name a folder"),
        ("data.train_maps=maps.npy", "data.train_maps has no part in puzzle_vit"),
        ("budget.latency=null", "budget.latency=null: say what to search for"),
        ("budget.latency=soon", "budget.latency='soon' is not a quantity"),
        ("evaluate.speed_batch=0", "evaluate.speed_batch=0 must be above 0"),
        ("evaluate.shared=true", "evaluate.shared=true lets images differ in tokens"),
        ("search.solver=guess", "search.solver: unknown solver 'guess'"),
        ("search.frontier=[1.5]", "must list shares of the latency"),
        ("baselines=[best]", "baselines: unknown baseline 'best'"),
        ("score.metric=loss", "score.metric='loss': choose one of kl, accuracy"),
        ("gkd.warmup_epochs=9", "gkd.warmup_epochs=9.0 must be below gkd.epochs=1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, setting, sentence):
    data = [f"checkpoint={tmp_path}", "data.train=train", "data.valid=valid", *QUICK]
    assert sentence in refused(data, setting)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.train=nowhere", "there is no .*nowhere"),
        ("checkpoint=nowhere", "checkpoint=nowhere: there is no model.json"),
        ("num_tokens=[8]", "num_tokens=8 is not feasible"),
        ("score.images=48", "leave nothing of the 48 images of data.train to learn from"),
        pytest.param(
            "budget.latency=1ns",
            "the least latency in reach is .*s, and 1 ns are allowed",
            marks=pytest.mark.slow,  # it takes scores to search
        ),
    ],
)
def test_what_cannot_be_run_is_told_in_a_sentence(data, tmp_path, setting, sentence):
    # As far as the run gets, with as little as it takes.
    quick = ["num_tokens=[7]", "library.steps=0", "score.images=4", "cost.seconds=0.1"]
    with pytest.raises(UserError, match=sentence) as error:
        adaptive.load("puzzle_vit", *data, *quick, setting).run(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_parents_that_cannot_be_searched_are_refused(data, tmp_path):
    other = make_parent(tmp_path / "swiglu", vit="vit_tiny_patch16_224", vit_settings={
        "embed_dim": 24, "depth": 1, "num_heads": 3, "scale_attn_norm": True,
    })  # fmt: skip
    with pytest.raises(UserError, match="block 0 of VisionTransformer cannot be made narrower"):
        adaptive.load("puzzle_vit", *data, f"checkpoint={other}").run(tmp_path / "run")
    make_folder(tmp_path / "mauve")
    (tmp_path / "mauve" / "red").rename(tmp_path / "mauve" / "mauve")
    with pytest.raises(UserError, match="data.valid: the model does not know class 'mauve'"):
        adaptive.load("puzzle_vit", *data, "data.valid=mauve").run(tmp_path / "other")


def test_timms_weights_must_know_the_classes(data, tmp_path, monkeypatch):
    def offline(config, classes):
        return build_model(replace(config, init=None), classes)

    monkeypatch.setattr("adaptive.quadformer.puzzle.parent.build_model", offline)
    timm = ["checkpoint=null", "model.init=timm", f"model.size={SIZE}", "model.patch=8"]
    with pytest.raises(UserError, match="data.train has 3 classes and timm's weights for .* 1000"):
        adaptive.load("puzzle_vit", *data, *timm, "model.max_patch=32").run(tmp_path / "timm")
