"""Small pretrained models that ship with the package: a first parent without a download.

>>> import adaptive.zoo
>>> adaptive.zoo.names()
['llama-tiny']

A parent setting refers to one as ``zoo:llama-tiny``. ``README.md`` beside this file is the model
card: what each was trained on, by which recipe, and how good it is.
"""

from __future__ import annotations

from pathlib import Path

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

RECIPES: Registry[str] = Registry("zoo model")
"""Names to the recipe in ``experiments/exp`` that trains the model."""

RECIPES.register("llama-tiny")("train_parent")

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What every model's directory holds; Hugging Face's ``from_pretrained`` reads it."""


def names() -> list[str]:
    """The names that ``path`` knows, sorted."""
    return sorted(RECIPES)


def path(name: str) -> Path:
    """The directory of a model, in Hugging Face layout.

    The weights are stored in half precision; load them with ``dtype=torch.float32`` to compute on
    a CPU.

    Args:
        name: one of ``names()``.

    Raises:
        UserError: an unknown name, or files that are missing from this installation.
    """
    recipe = RECIPES[name]
    directory = Path(__file__).parent / name
    missing = [file for file in FILES if not (directory / file).is_file()]
    if missing:
        raise UserError(
            f"zoo:{name} lacks {', '.join(missing)} in {directory}: train it with `python -m "
            f"adaptive.run +exp={recipe}` and copy the run's artifacts/export there"
        )
    return directory
