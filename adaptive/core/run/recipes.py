"""The recipes that there are: YAML files in ``exp/`` of the package, and of ``--config-dir``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any


def recipes(arguments: Sequence[str] = ()) -> list[str]:
    """Names that ``+exp=NAME`` accepts, given the other arguments of the command line."""
    return sorted(dict(_files(arguments)))


def recipe_list(arguments: Sequence[str] = ()) -> str:
    """One line a recipe: its name and the first sentence of its opening comment."""
    files = dict(sorted(_files(arguments)))
    width = max(map(len, files), default=0)
    return "\n".join(f"  {n:<{width}}  {_story(f.read_text('utf-8'))}" for n, f in files.items())


def _files(arguments: Sequence[str]) -> Iterator[tuple[str, Any]]:
    homes: list[Any] = [resources.files("adaptive.experiments")]
    found = re.search(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.+)", "\n".join(arguments))
    if found:
        homes.append(Path(found[1]))
    for exp in (home / "exp" for home in homes):
        for file in exp.iterdir() if exp.is_dir() else ():
            if file.name.endswith(".yaml"):
                yield file.name.removesuffix(".yaml"), file


def _story(text: str) -> str:
    comments = re.findall(r"^#(?! @package) ?(.*)$", text, re.MULTILINE)
    first = re.split(r"[.:;(](?:\s|$)| \(", " ".join(comments), maxsplit=1)[0].strip()
    return first if len(first) <= 88 else first[:87].rsplit(" ", 1)[0] + " …"
