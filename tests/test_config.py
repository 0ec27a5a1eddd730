from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import toy
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import adaptive
from adaptive import config, run
from adaptive.core.errors import UserError
from adaptive.core.run import TASKS
from adaptive.core.run.recipes import recipes


@pytest.fixture(autouse=True)
def registered():
    toy.register()


def load_toy(*overrides: str):
    return adaptive.load("toy", *overrides, config_dir=str(toy.RECIPES)).config


def test_defaults_are_the_dataclass_and_differences_the_recipe():
    assert load_toy() == toy.ToyConfig(
        name="toy", task="toy", offset=1.0, budget=toy.Limits(memory="60%")
    )


def test_overrides_need_no_plus_even_where_the_recipe_is_silent():
    assert load_toy("budget.latency=0.6x").budget == toy.Limits(latency="0.6x", memory="60%")


def test_the_call_is_remembered_for_the_run():
    experiment = adaptive.load("toy", "seed=3", config_dir=str(toy.RECIPES))
    assert experiment.command == "adaptive.load('toy', 'seed=3')"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+typo=1", "unknown setting 'typo'"),
        ("++typo=1", "unknown setting 'typo'"),
        ("ofset=1", "did you mean 'offset'"),
        ("+budget.latancy=1", "did you mean 'budget.latency'"),
        ("seed=abc", "seed=abc: value 'abc'"),
        ("items=0", "items=0 must be at least 1"),
    ],
)
def test_mistakes_are_users_mistakes_in_python_too(override, words):
    with pytest.raises(UserError, match=words.replace("+", r"\+")):
        load_toy(override)


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(UserError, match="unknown recipe 'tooy'.*did you mean 'toy'"):
        adaptive.load("tooy", config_dir=str(toy.RECIPES))


def test_a_recipe_that_forgets_its_task_is_told_so(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "bare.yaml").write_text("# @package _global_\nname: bare\n")
    with pytest.raises(UserError, match="'bare' chooses no task"):
        adaptive.load("bare", config_dir=str(tmp_path))


# Hydra has parsed what gets here: an interpolation without an end is refused before.
values = st.text(min_size=1).filter(lambda text: "${" not in text)


@given(st.lists(values, min_size=1, max_size=3), st.lists(values))
def test_sweep_labels_are_file_names_and_as_different_as_the_jobs(one, other):
    labels = [config.sweep_label(OmegaConf.create([f"k={v}" for v in vs])) for vs in (one, other)]
    for label in labels:
        assert 0 < len(label) <= 130 and "/" not in label and label not in (".", "..")
    if sorted(one) != sorted(other):
        assert labels[0] != labels[1]


def test_sweep_labels_of_common_overrides_read_well():
    label = config.sweep_label(OmegaConf.create(["+exp=toy", "seed=1", "budget.latency=0.6x"]))
    assert label == "budget.latency=0.6x,seed=1"
    assert config.sweep_label(OmegaConf.create(["+exp=toy"])) == "defaults"


def test_settings_may_be_called_like_folders_beside_the_recipes():
    loaded = adaptive.load("textscale_score", "gt=a", "results=b").config
    assert (loaded.gt, loaded.results) == ("a", "b")
    assert (Path(__file__).parents[1] / "experiments" / "results").is_dir()


def test_what_is_taken_away_stays_away():
    """Also where it is a default of the task, and not of the recipe."""
    config = adaptive.load("textscale_eval", "~baselines.tiling", "detector.path=x").config
    assert set(config.baselines) == {"fixed_zoom", "three_zooms"}


def test_a_setting_may_be_called_like_the_group_of_another_task():
    for _ in range(2):  # neither keeps the other from what it means
        network = adaptive.load("textscale_eval", "prior=onnx", "prior.path=x").config.prior
        assert (network.kind, network.threshold) == ("onnx", 0.3)
        assert adaptive.load("quadformer_eval", "prior=centre").config.prior == "centre"


def test_so_on_the_command_line_and_in_a_users_recipe(tmp_path, monkeypatch, capsys):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [quadformer_eval, _self_]\nname: mine\n"
    )
    arguments = ["--config-dir", str(tmp_path), "+exp=mine", "prior=centre", "--cfg", "job"]
    monkeypatch.setattr(sys, "argv", ["adaptive", *arguments])
    monkeypatch.setattr(run.signal, "signal", lambda *args: None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    run.main()
    assert yaml.safe_load(capsys.readouterr().out)["prior"] == "centre"


@pytest.mark.parametrize("name", recipes())
def test_the_command_line_and_python_give_the_same_experiment(name):
    """The command line's own configuration, as it prints it, against ``adaptive.load``."""
    command = [sys.executable, "-m", "adaptive.run", f"+exp={name}", "seed=7", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    experiment = adaptive.load(name, "seed=7")
    assert config.validated(OmegaConf.create(done.stdout)) == experiment.config
    assert experiment.config.seed == 7
    assert experiment.config.task in TASKS


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_named_like_its_file_and_opens_with_its_story(name):
    path = Path(__file__).parents[1] / "experiments" / "exp" / f"{name}.yaml"
    text = path.read_text()
    assert yaml.safe_load(text)["name"] == name
    opening = [line for line in text.splitlines() if line.startswith("#")]
    assert len(opening) >= 4 and f"+exp={name}" in "\n".join(opening)
