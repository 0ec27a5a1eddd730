"""From a folder of images to a trained model, its budgets, its evaluation and both reports."""

from __future__ import annotations

import json

import pytest
from tiny_images import SIZE, VIT, make_folder

import adaptive
from adaptive.core.errors import UserError

MODEL = [f"model.size={SIZE}", "model.patch=8", "model.max_patch=32"]
MODEL += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]
SUMMARY = {"tokens", "accuracy", "images_per_second", "gmacs", "realisation", "tokenizer_share"}
SUMMARY |= {"full_grid.images_per_second"}


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    make_folder(tmp_path / "train", each=8)
    make_folder(tmp_path / "valid", each=3)
    return [f"data.root={tmp_path}", "data.train=train", "data.valid=valid", "device=cpu"]


def training(data, *more):
    small = [
        "train.epochs=4",
        "train.batch=8",
        "train.num_tokens=[7,10,16]",
        "train.learning_rate=0.003",
    ]
    small += ["train.warmup_epochs=1", "train.validate_epochs=2"]
    return adaptive.load("quadformer_train", *MODEL, *data, *small, *more)


def evaluation(data, *more):
    valid = [d for d in data if "data.train" not in d]
    quick = ["evaluate.seconds=0.2", "evaluate.speed_batch=2", "evaluate.pictures=3"]
    return adaptive.load("quadformer_eval", *MODEL, *valid, *quick, "num_tokens=7", *more)


def test_end_to_end(data, tmp_path):
    trained = training(data, "train.epochs=3").run(tmp_path / "run")
    assert trained.summary["images.train"] == 24 and trained.summary["train.steps"] == 9
    assert {k for k in trained.summary if k.startswith("accuracy.")} == {
        "accuracy.7",
        "accuracy.10",
        "accuracy.16",
    }
    files = {path.name for path in (tmp_path / "run" / "artifacts" / "train").iterdir()}
    assert files == {"model.json", "model.safetensors", "ema.safetensors", "manifest.json"}
    page = trained.report.read_text()
    assert "Accuracy by budget" in page and "7 tokens" in page

    baselines = [f"checkpoint={tmp_path / 'run'}", "~baselines.entropy"]
    baselines += [f"baselines.uniform={tmp_path / 'run'}"]
    result = evaluation(data, *baselines).run(tmp_path / "eval")
    keys = {
        f"baseline.{name}.{key}"
        for name in ("uniform", "tome")
        for key in ("accuracy", "images_per_second")
    }
    assert set(result.summary) == SUMMARY | keys
    assert result.summary["tokens"] == 7
    # What was exported in half precision is what was trained, or nearly.
    assert result.summary["accuracy"] == pytest.approx(trained.summary["accuracy.7"], abs=12)
    speed = json.loads((tmp_path / "eval" / "artifacts" / "speed" / "speed.json").read_text())
    promised = speed["gmacs_full"] / speed["gmacs"]
    assert result.summary["realisation"] == pytest.approx(speed["speedup"] / promised)
    page = result.report.read_text()
    assert "Patches" in page and page.count("<figure>") == 2
    assert all(f"<td>{name}</td>" in page for name in ("quadformer", "uniform", "tome"))


def test_nothing_is_done_twice(data, tmp_path, capsys):
    short = ["train.epochs=2", "train.validate_epochs=1"]
    first = training(data, *short).run(tmp_path / "run")
    capsys.readouterr()
    again = training(data, *short).run(tmp_path / "run")
    assert (
        again.summary == first.summary and capsys.readouterr().err.count("done before, kept") == 4
    )
    (tmp_path / "train" / "red" / "0.png").unlink()
    other = training(data, *short).run(tmp_path / "run")
    assert other.summary["images.train"] == 23


def test_without_images_speed_is_measured_all_the_same(data, tmp_path, monkeypatch):
    given = ["checkpoint=null", "data.valid=null", "~baselines.tome", "~baselines.entropy"]
    result = evaluation(data, *given).run(tmp_path / "eval")
    assert result.summary["accuracy"] is None and result.summary["images_per_second"] > 0
    assert result.summary["baseline.uniform.images_per_second"] > 0


def test_classes_and_kinds_that_there_are_not(data, tmp_path, monkeypatch):
    make_folder(tmp_path / "other")
    (tmp_path / "other" / "red").rename(tmp_path / "other" / "mauve")
    with pytest.raises(UserError, match="data.valid: the model does not know class 'mauve'"):
        training(data, "data.valid=other").run(tmp_path / "run")
    with pytest.raises(UserError, match="data: there is no .*nowhere"):
        training(data, "data.train=nowhere").run(tmp_path / "run")


def test_mistakes_are_told_before_anything_is_decoded(data, tmp_path):
    with pytest.raises(UserError, match="train.num_tokens=8 is not feasible .* choose 7 or 10"):
        training(data, "train.num_tokens=[7,8]").run(tmp_path / "run")
    with pytest.raises(UserError, match="unknown baseline 'quadformr'.*did you mean"):
        training(data, "model.kind=quadformr").run(tmp_path / "run")
    with pytest.raises(UserError, match="model.vit: timm has no model 'vit_tinny"):
        training(data, "model.vit=vit_tinny_patch16_224").run(tmp_path / "run")
    assert not (tmp_path / "cache").exists()


def test_without_labels_a_checkpoint_is_judged_by_its_full_grid(data, tmp_path):
    training(data, "train.epochs=2", "train.validate_epochs=1").run(tmp_path / "run")
    given = ["data.valid=null", f"checkpoint={tmp_path / 'run'}", "~baselines.entropy"]
    given += ["evaluate.speed_batch=0", "~baselines.tome"]
    whole = evaluation(data, *given, "num_tokens=16").run(tmp_path / "whole")
    assert whole.summary["agreement"] == 100 and whole.summary["accuracy"] is None
    part = evaluation(data, *given).run(tmp_path / "part")
    assert 0 <= part.summary["agreement"] <= 100 and part.summary["agreement.views"] == 110
    assert "baseline.uniform.agreement" in part.summary
    assert "answers as at the full grid (%)" in part.report.read_text()


@pytest.mark.parametrize("setting", ["checkpoint", "baselines.uniform"])
def test_weights_that_there_are_not_are_told_at_the_start(data, tmp_path, setting):
    missing = evaluation(data, "checkpoint=null", f"{setting}={tmp_path / 'none'}")
    with pytest.raises(UserError, match="there is no model.json in it.*quadformer_train run"):
        missing.stages()
