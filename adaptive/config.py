"""From recipes and overrides to a validated configuration: the bridge to Hydra."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra._internal.sources_registry import SourcesRegistry
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from adaptive.core.errors import UserError
from adaptive.core.run import TASKS, Experiment, Task, TaskConfig
from adaptive.core.run.messages import reworded
from adaptive.core.run.recipes import recipe_list
from adaptive.core.run.sweep import label_of
from adaptive.launcher import register_launchers

# Modules that register tasks; importing one must not import torch.
TASK_MODULES = (
    "adaptive.core.collect.config",
    "adaptive.core.frontiers.config",
    "adaptive.core.profiling.config",
    "adaptive.llm_puzzle.config",
    "adaptive.quadformer.config",
    "adaptive.quadformer.puzzle.config",
    "adaptive.textscale.config",
    "adaptive.textscale.data.config",
    "adaptive.textscale.evaluate.config",
    "adaptive.textscale.tokens.config",
    "adaptive.textscale.train.config",
)
RECIPES = "recipes://adaptive.experiments"


class RecipeSource(ImportlibResourcesConfigSource):
    """The recipes of a package, as the group ``exp``.

    Hydra takes every folder of a source for a group of that name, whose settings nobody could set
    then: ``experiments/results`` would keep a task from having a setting ``results``.
    """

    @staticmethod
    def scheme() -> str:
        return "recipes"

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", "exp") and super().is_group(config_path)


def register() -> None:
    """Makes recipes, launchers and tasks known to Hydra."""
    register_frame()
    register_tasks()


def register_frame() -> None:
    """What there is beside tasks: enough for the list of recipes that ``--help`` prints."""
    SourcesRegistry.instance().register(RecipeSource)
    register_launchers()
    OmegaConf.register_new_resolver("sweep_label", sweep_label, replace=True)
    OmegaConf.register_new_resolver("recipe_list", _help, replace=True)


def register_tasks() -> None:
    """Makes every task a choice of Hydra's group ``task``, whose settings are top-level keys, and
    a group of every setting of a task that is chosen by name."""
    for module in TASK_MODULES:
        importlib.import_module(module)
    store = ConfigStore.instance()
    for name, task in TASKS.items():
        node = OmegaConf.structured(task.config(task=name))
        if task.groups:
            # A recipe comes after its task, so what it says of a group's settings holds.
            with open_dict(node):
                node.defaults = [
                    "_self_",
                    *({f"/{g}": next(iter(c))} for g, c in task.groups.items()),
                ]
        store.store(group="task", name=name, node=node, package="_global_")
        for group, choices in task.groups.items():
            for choice, settings in choices.items():
                store.store(group=group, name=choice, node=settings, package=group)


def free_settings(arguments: Sequence[str], config_dir: str | None = None) -> None:
    """Lets a task's plain setting have the name of another task's group.

    Hydra knows the groups of all tasks at once: it takes ``prior=centre`` of ``quadformer_eval``
    for a choice of TextScale's group ``prior``. Where the arguments name such a setting, the task
    that they choose decides what it is.

    Args:
        arguments: of the command line, after :func:`register`.
        config_dir: the user's recipes.
    """
    named = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
    shared = {
        group
        for task in TASKS.values()
        for group in task.groups
        if group in named and any(_plain(other, group) for other in TASKS.values())
    }
    if not shared:
        return
    # Of a sweep over recipes the first decides; what cannot be composed is told later.
    chosen = [a.split(",")[0] for a in arguments if a.startswith(("+exp=", "task="))]
    try:
        with _hydra_aside(), initialize_config_module("adaptive.conf", version_base="1.3"):
            name = compose("config", [*chosen, *_search_path(config_dir)]).get("task")
    except Exception:
        return
    store = ConfigStore.instance().repo
    for group in shared:
        if name in TASKS and _plain(TASKS[name], group):
            store.pop(group, None)


def _plain(task: Task, name: str) -> bool:
    """Whether a task has a setting of this name that is no group."""
    return name not in task.groups and name in {field.name for field in fields(task.config)}


@contextlib.contextmanager
def _hydra_aside() -> Iterator[None]:
    """Lets something be composed within a run that Hydra itself has started."""
    started = GlobalHydra.instance()
    ours = started.hydra
    started.clear()
    try:
        yield
    finally:
        started.hydra = ours


def _search_path(config_dir: str | None) -> list[str]:
    return [] if config_dir is None else [f"hydra.searchpath=[{RECIPES},file://{config_dir}]"]


def load(name: str, *overrides: str, config_dir: str | None = None) -> Experiment:
    """See :func:`adaptive.load`."""
    register()
    paths, arguments = _search_path(config_dir), [f"+exp={name}", *overrides]
    free_settings(arguments, config_dir)
    with reworded(arguments), _hydra_aside():
        with initialize_config_module("adaptive.conf", version_base="1.3"):
            composed = compose("config", [*arguments, *paths])
        words = ", ".join(map(repr, (name, *overrides)))
        changed = tuple(o for o in overrides if not o.lstrip("+").startswith(("hydra.", "hydra/")))
        return Experiment(validated(composed), f"adaptive.load({words})", changed)


def validated(composed: DictConfig) -> TaskConfig:
    """The dataclass that a composed configuration describes.

    Hydra lets ``+typo=1`` add a key even under a schema, so everything is merged once more into
    the bare schema, which refuses it.

    Raises:
        UserError: an unknown key, a value of the wrong type, or one that the task refuses.
    """
    if composed.get("task") is None:
        raise UserError(
            f"recipe {composed.get('name')!r} chooses no task: its defaults need a line such as "
            f"`- override /task: {next(iter(TASKS))}`"
        )
    schema = TASKS[composed.task].config
    plain = OmegaConf.to_container(composed, resolve=True)
    bare = OmegaConf.structured(schema)
    _empty(bare, plain)
    merged = OmegaConf.merge(bare, plain)
    config = cast(TaskConfig, OmegaConf.to_object(merged))
    config.validate()
    return config


def _empty(bare: DictConfig, plain: Any) -> None:
    """Takes the defaults out of mappings with names of the user's choice, as ``baselines``: what
    ``~baselines.tiling`` took away would come back from them."""
    for key, value in plain.items():
        if not isinstance(value, dict) or key not in bare:
            continue
        kind = OmegaConf.get_type(bare, key)
        if kind is dict:
            bare[key] = {}
        elif kind is not None and OmegaConf.is_dict(bare[key]):
            _empty(bare[key], value)


def is_about_the_sweep(override: str) -> bool:
    """Whether an override names the recipe or where it runs, rather than a setting of the run."""
    return override.startswith(("+exp=", "cluster="))


def job_overrides(settings: HydraConf) -> tuple[str, ...]:
    """What a run changes of its recipe."""
    return tuple(o for o in settings.overrides.task if not is_about_the_sweep(o))


def sweep_label(overrides: ListConfig) -> str:
    """The name of a sweep job's directory: its overrides, the recipe and the cluster aside.

    The same job gets the same name each time, so that a sweep started again resumes.
    """
    return label_of(str(o) for o in overrides if not is_about_the_sweep(str(o)))


def _help() -> str:
    return recipe_list(sys.argv[1:]).replace("$", "$$")  # Hydra substitutes names after a dollar
