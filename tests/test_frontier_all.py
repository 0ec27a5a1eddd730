"""The recipe of the three families together, on models of a few thousand random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_images import CLASSES, VIT
from tiny_puzzle import SHAPE, character_tokenizer
from tiny_text import make_net

import adaptive
from adaptive import zoo
from adaptive.core.errors import UserError

FAMILIES = ("puzzle", "quadformer", "textscale")
PUZZLE = {
    "data": {"length": 24, "tokens": 1500, "validation_tokens": 300, "batch": 32},
    "distill": {"tokens": 300},
    "score": {"tokens": 200},
    "workload": {"batch": 2, "prompt": 16},
    "space": {"kv_heads": [1], "ffn_fractions": [0.5]},
    "cost": {"seconds": 0.5},
    "verify": {"seconds": 0.1},
    "gkd": {"tokens": 600},
    "search": {"frontier": [0.8], "tighten": 0},
}


def override(prefix: str, settings: dict) -> str:
    """A mapping that is merged into one of the recipe's, in Hydra's grammar."""
    return f"++{prefix}={json.dumps(settings).replace(chr(34), '')}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """A model of each family, as the family saves them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from adaptive.quadformer.models import build_model, save_trained
    from adaptive.quadformer.settings import ModelConfig
    from adaptive.textscale.network import save_net

    home = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(home / "puzzle")
    character_tokenizer().save_pretrained(home / "puzzle")
    config = ModelConfig(max_patch=32, **VIT)
    (home / "quadformer").mkdir()
    model = build_model(config, len(CLASSES))
    save_trained(home / "quadformer", config, CLASSES, {"model": model})
    save_net(make_net(), home / "textscale.safetensors")
    return {
        **{name: home / name for name in FAMILIES[:2]},
        "textscale": home / "textscale.safetensors",
    }


def small(weights: dict[str, Path], folder: Path) -> list[str]:
    puzzle = {**PUZZLE, "parent": str(weights["puzzle"])}
    puzzle["cost"] = {**PUZZLE["cost"], "table": str(folder / "table.csv")}
    return [
        override("parts.puzzle.set", puzzle),
        "parts.puzzle.values=[0.9x,0.7x]",
        f"parts.quadformer.set.checkpoint={weights['quadformer']}",
        override("parts.quadformer.set", {"evaluate": {"speed_batch": 2, "seconds": 0.2}}),
        "parts.quadformer.values=[7,10]",
        "parts.quadformer.reference.set.num_tokens=16",
        f"parts.textscale.set.detector.path={weights['textscale']}",
        "parts.textscale.set.data.images=render:2",
        "parts.textscale.set.sides=[320,1280]",
        "parts.textscale.values=[100000,300000]",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_families_from_one_command(weights, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ADAPTIVE_CACHE", str(tmp_path / "cache"))
    settings = small(weights, tmp_path)
    found = adaptive.load("frontier_all", *settings).run(tmp_path / "run").summary
    for name in FAMILIES:
        assert 0 <= found[f"{name}.points"] <= 2 and found[f"{name}.runs.failed"] == 0
        assert found[f"{name}.at_half.how"]
        assert f"{name}.at_half" in found and f"{name}.at_half.kept" in found
        assert found[f"{name}.reference.cost"] > 0
    assert found["puzzle.quality"] == "child.loss.gkd" and found["textscale.quality"] == "f"
    assert found["quadformer.quality"] == "agreement"
    assert found["quadformer.reference.quality"] == 100
    # What no budget changes was made once.
    words = capfd.readouterr().err
    for stage in ("costs", "library", "scores", "single"):
        assert words.count(f"\n[{stage}] starts") == 1, stage
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('class="panels"') == 1 and page.count("<svg") >= 4
    run = tmp_path / "run" / "runs"
    pages = ["puzzle/budget.latency=0.7x", "quadformer/reference", "textscale/budget.pixels=300000"]
    assert all((run / name / "report.html").is_file() for name in pages)


def test_without_weights_of_two_families_the_third_runs(monkeypatch):
    """As long as the zoo has a parent for Puzzle alone."""
    registry = type(zoo.MODELS)("zoo model")
    registry.register("llama-tiny")(zoo.MODELS["llama-tiny"])
    monkeypatch.setattr(zoo, "MODELS", registry)
    words = (
        r"parts.quadformer: unknown zoo model .* \+exp=quadformer_train .*; "
        r"parts.textscale: unknown zoo model .* \+exp=textscale_finetune .*"
        r"leave out: (parts.quadformer=null parts.textscale=null)"
    )
    with pytest.raises(UserError, match=words) as caught:
        adaptive.load("frontier_all").stages()
    assert "llama" not in str(caught.value)
    found = adaptive.load("frontier_all", "parts.quadformer=null", "parts.textscale=null").stages()
    assert [stage.name for stage in found] == ["runs_puzzle", "report", "complete"]


def test_missing_weights_are_told_before_anything_is_computed(weights, tmp_path):
    lacking = ["parts.quadformer.set.checkpoint=nowhere", "parts.textscale.set.detector.path=none"]
    words = (
        "parts.quadformer: checkpoint=nowhere: .*quadformer_train run; "
        "parts.textscale: detector.path=none: there are no weights.*"
        "leave out: parts.quadformer=null parts.textscale=null"
    )
    with pytest.raises(UserError, match=words):
        adaptive.load("frontier_all", *small(weights, tmp_path), *lacking).run(tmp_path / "run")
    assert not (tmp_path / "run" / "runs").exists()
