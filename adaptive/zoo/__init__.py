"""Small pretrained models that ship with the package: a first run without a download.

>>> import adaptive.zoo
>>> adaptive.zoo.names()
['llama-tiny']

A setting that takes a model refers to one as ``zoo:llama-tiny``. ``README.md`` beside this file is
the model card: what each was trained on, by which recipe, and how good it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

__all__ = ["LLAMA", "MODELS", "PREFIX", "QUADFORMER", "TEXTSCALE", "Kind", "Model", "names", "path"]

PREFIX = "zoo:"  # of a model's name in a setting


@dataclass(frozen=True)
class Kind:
    """Models of one family, whose directories hold the same files.

    Attributes:
        files: what every directory holds; a run of the recipe leaves them in ``artifacts/export``.
        recipe: in ``experiments/exp``; trains a model of this kind.
    """

    files: tuple[str, ...]
    recipe: str


LLAMA = Kind(
    ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"), "train_parent"
)
"""What Hugging Face's ``from_pretrained`` reads."""

QUADFORMER = Kind(("model.json", "model.safetensors", "accuracy.json"), "quadformer_train")
"""What ``adaptive.quadformer.models.load_trained`` reads, and how good the weights are."""

TEXTSCALE = Kind(("net.safetensors",), "textscale_finetune")
"""What ``adaptive.textscale.network.load_net`` reads."""


@dataclass(frozen=True)
class Model:
    """A model of the zoo.

    Attributes:
        kind: says which files it is.
        recipe: in ``experiments/exp``; trains it.
    """

    kind: Kind
    recipe: str


MODELS: Registry[Model] = Registry("zoo model")
"""The models by name."""

MODELS.register("llama-tiny")(Model(LLAMA, "train_parent"))


def names(kind: Kind | None = None) -> list[str]:
    """The names that ``path`` knows, sorted; of one kind, or of all."""
    return sorted(name for name, model in MODELS.items() if kind in (None, model.kind))


def path(name: str, kind: Kind | None = None) -> Path:
    """The directory of a model.

    Weights are stored in half precision: load them as float32 to compute on a CPU.

    Args:
        name: one of ``names()``.
        kind: what the model must be; None: any.

    Raises:
        UserError: an unknown name, one of another kind, or files that are missing from this
            installation.
    """
    if name not in MODELS:
        raise UserError(_unknown(name, kind))
    model = MODELS[name]
    if kind is not None and model.kind != kind:
        fitting = ", ".join(PREFIX + other for other in names(kind)) or "a directory of your own"
        raise UserError(f"zoo:{name} is a model of another family: choose {fitting}")
    directory = Path(__file__).parent / name
    missing = [file for file in model.kind.files if not (directory / file).is_file()]
    if missing:
        raise UserError(
            f"zoo:{name} lacks {', '.join(missing)} in {directory}: train it with `python -m "
            f"adaptive.run +exp={model.recipe}` and copy the run's artifacts/export there"
        )
    return directory


def _unknown(name: str, kind: Kind | None) -> str:
    """The sentence on a name that there is not: of a kind that has no model, how to make one."""
    fitting: Registry[Model] = Registry(MODELS.kind)
    for known in names(kind):
        fitting.register(known)(MODELS[known])
    if kind is None or fitting:
        return fitting.unknown(name)
    return (
        f"unknown zoo model {name!r}: none of this family is shipped yet, so train one with "
        f"`python -m adaptive.run +exp={kind.recipe} hydra.run.dir=DIR` and give its directory DIR "
        f"in place of {PREFIX}{name}"
    )
