"""Settings of `profile` and `verify_costs`: their defaults, their recipes, and every refusal."""

from __future__ import annotations

import subprocess
import sys

import pytest

import adaptive
from adaptive.core.errors import UserError
from adaptive.core.profiling.config import ProfileConfig, VerifyCostsConfig
from adaptive.core.run import TASKS

RECIPES = {
    "profile": ProfileConfig,
    "verify_costs": VerifyCostsConfig,
    "verify_costs_tiny": VerifyCostsConfig,
}

WHOLE = "must list whole numbers >= 1"

# Override of a setting to the sentence that refuses it.
REFUSED = {
    "dtype=int4": "dtype='int4' is unknown, choose one of fp32, bf16, fp16, fp8",
    "dtype=float32": "dtype='float32' is unknown, choose one of fp32, bf16, fp16, fp8",
    "mode=turbo": "mode='turbo' is unknown, choose auto, eager, compiled or graph",
    "spread=0": "spread=0.0 must be above 0",
    "spread=-0.1": "spread=-0.1 must be above 0",
    "spread=nan": "spread=nan must be above 0",
    "seconds=0": "seconds=0.0 must be above 0",
    "seconds=-1": "seconds=-1.0 must be above 0",
    "variants.tensor_parallel=[]": f"variants.tensor_parallel=[] {WHOLE}",
    "variants.tensor_parallel=[1,0]": f"variants.tensor_parallel=[1, 0] {WHOLE}",
    "variants.ffn_multiple=0": "variants.ffn_multiple=0 must be >= 1",
    "workload.prefill_tokens=0": "workload.prefill_tokens=0 must be >= 1",
    **{
        f"workload.{name}={text}": f"workload.{name}={value} {WHOLE}"
        for name in ("batches", "contexts", "prompts", "prefill_batches", "tokens")
        for text, value in (("[]", []), ("[8,0]", [8, 0]), ("[-4]", [-4]))
    },
}
BETWEEN = (
    "must lie between the least and the most of workload.batches=[1, 4, 16, 64, 256], at which "
    "blocks are measured"
)
ENDS = "must be [least, most], both at least 1"
REFUSED_CHILDREN = {
    "count=-1": "children.count must not be negative",
    "count=0": "children.count=0 verifies nothing, ask for at least 1",
    "generations=-1": "children.generations must not be negative",
    "layers=0": "children.layers=0 must be >= 1, or null",
    "layers=-2": "children.layers=-2 must be >= 1, or null",
    "seconds=0": "children.seconds=0.0 must be above 0",
    "batches=[512]": f"children.batches=[512] {BETWEEN}",
    "batches=[1,257]": f"children.batches=[1, 257] {BETWEEN}",
    **{
        f"{name}={text}": f"children.{name}={value} {WHOLE}"
        for name in ("batches", "generate_batches")
        for text, value in (("[]", []), ("[1,0]", [1, 0]))
    },
    **{
        f"{name}={text}": f"children.{name}={value} {ENDS}"
        for name in ("prompts", "outputs")
        for text, value in (
            ("[]", []),
            ("[8]", [8]),
            ("[1,2,3]", [1, 2, 3]),
            ("[9,8]", [9, 8]),
            ("[0,8]", [0, 8]),
        )
    },
}


@pytest.mark.parametrize(
    ("recipe", "override"),
    [*(("profile", override) for override in REFUSED), ("verify_costs", "workload.batches=[]")],
)
def test_refusals(recipe, override):
    with pytest.raises(UserError) as refusal:
        adaptive.load(recipe, override)
    assert str(refusal.value) == REFUSED[override]


@pytest.mark.parametrize("override", REFUSED_CHILDREN)
def test_refusals_of_children(override):
    with pytest.raises(UserError) as refusal:
        adaptive.load("verify_costs", f"children.{override}")
    assert str(refusal.value) == REFUSED_CHILDREN[override]


@pytest.mark.parametrize("sentence", [*REFUSED.values(), *REFUSED_CHILDREN.values()])
def test_a_refusal_is_one_sentence_that_begins_with_the_setting(sentence):
    setting = sentence.partition("=")[0].partition(" ")[0]
    config = VerifyCostsConfig()
    for name in setting.split("."):
        assert hasattr(config, name), f"{setting} is no setting"
        config = getattr(config, name)
    assert "\n" not in sentence and not sentence.endswith(".")


def test_settings_of_children_belong_to_the_task_that_has_them():
    for setting in ("children.count=3", "force=true", "pairs=true"):
        with pytest.raises(UserError, match=f"unknown setting '{setting.partition('=')[0]}'"):
            adaptive.load("profile", setting)


@pytest.mark.parametrize("config", [ProfileConfig, VerifyCostsConfig])
def test_defaults_are_valid(config):
    assert config().validate() is None  # says nothing, where a refusal would raise


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_load(recipe):
    config = adaptive.load(recipe).config
    assert type(config) is RECIPES[recipe] is TASKS[config.task].config
    assert config.name == recipe


@pytest.mark.parametrize("recipe", ["profile", "verify_costs"])
def test_a_recipe_holds_differences_only(recipe):
    found = adaptive.load(recipe).config
    default = RECIPES[recipe](name=recipe, task=recipe, device=found.device)
    assert found == default


def test_configurations_are_free_of_torch():
    code = "import sys, adaptive; adaptive.load('verify_costs'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
