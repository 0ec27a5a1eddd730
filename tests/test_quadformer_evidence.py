"""The script that evaluates many trained ViTs: every way of every kind, once, with real models."""

from __future__ import annotations

import json

import pytest
from tiny_images import SIZE, VIT, make_folder

import adaptive
from adaptive.experiments import quadformer_evidence as script
from adaptive.experiments import train_quadformers as trainings

SMALL = [f"model.size={SIZE}", "model.patch=8", "model.max_patch=16", "train.num_tokens=[7,16]"]
SMALL += [f"+model.vit_settings.{key}={value}" for key, value in VIT["vit_settings"].items()]
SMALL += ["train.epochs=2", "train.warmup_epochs=1", "train.batch=8", "device=cpu"]
SMALL += ["evaluate.seconds=0.2", "evaluate.speed_batch=2", "evaluate.batch=5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with the trainings of the study ``main``, one seed, and their overrides."""
    directory = tmp_path_factory.mktemp("trainings")
    make_folder(directory / "train", each=3)
    make_folder(directory / "valid", each=3)
    common = [*SMALL, f"data.root={directory}", "data.train=train", "data.valid=valid"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTIVE_CACHE", str(directory / "cache"))
        patch.setattr(script, "BUDGETS", (7, 10, 16))
        patch.setattr(script, "FEW", (7, 10))
        for training in trainings.trainings(["main", "full"], [0]):
            experiment = adaptive.load(trainings.RECIPE, *training.arguments(common))
            experiment.run(training.directory(directory / "runs"))
        yield directory, common


def start(directory, common, *more):
    files = ["--dir", str(directory / "runs"), "--out", str(directory / "results.json")]
    script.main(
        [
            *files,
            "--studies",
            "main",
            "full",
            "--seeds",
            "0",
            *more,
            "--speeds",
            "10",
            "--",
            *common,
        ]
    )
    return json.loads((directory / "results.json").read_text())


def test_every_way_is_measured_once(trained, monkeypatch):
    record = start(*trained)
    assert {key: set(found) for key, found in record["accuracy"].items()} == {
        "main/quadtree/0": {
            "centred",
            "shifted",
            "shared",
            "prior random",
            "prior centre",
            "prior gain",
        },
        "main/uniform/0": {"centred", "shifted"},
        "main/centre/0": {"centred", "shifted", "shared"},
        "full/vanilla/0": {"centred", "shifted", "as tome", "as entropy", "as quadformer"},
    }
    for ways in record["accuracy"].values():
        assert all(0 <= value <= 100 for found in ways.values() for value in found.values())
    quadtree, vanilla = (record["accuracy"][f"{k}/0"] for k in ("main/quadtree", "full/vanilla"))
    assert set(quadtree["centred"]) == {"7", "10", "16"} and set(quadtree["shared"]) == {"7", "10"}
    assert set(vanilla["centred"]) == {"16"}
    own = json.loads((trained[0] / "runs/main/quadtree-0/summary.json").read_text())
    assert quadtree["centred"]["7"] == own["accuracy.7"]
    rates = record["speed"]["10"]["images_per_second"]
    assert {"model", "full grid", "uniform", "tome", "entropy"} <= set(rates)
    assert record["speed"]["10"]["gmacs"]["model"] < record["speed"]["10"]["gmacs"]["full grid"]

    monkeypatch.setattr(script, "evaluate", lambda *_: pytest.fail("again") if _[2] == {} else None)
    monkeypatch.setattr(script, "speed", lambda *_: pytest.fail("again"))
    assert start(*trained) == record


def test_what_is_not_trained_is_counted_and_other_settings_are_refused(trained):
    with pytest.raises(SystemExit, match="4 trainings are not finished"):
        start(*trained, "--seeds", "0", "1")
    with pytest.raises(SystemExit, match="is of .*move it away"):
        start(trained[0], [*trained[1], "seed=3"])
