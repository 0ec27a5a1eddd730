"""Mistakes on the command line, told in one sentence.

Hydra and OmegaConf explain a mistake in several lines, some of which advise what this project
refuses (``+typo=1``). Their errors are recognised by where they were raised and by their
attributes, without importing either package.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.run.recipes import recipes

COMPOSERS = {"hydra", "omegaconf", "yaml", "antlr4"}


@contextlib.contextmanager
def reworded(arguments: Sequence[str]) -> Iterator[None]:
    """Raises ``UserError`` in place of an error that Hydra, OmegaConf or the YAML reader raised.

    Args:
        arguments: of the command line, or the overrides.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _origin(error) not in COMPOSERS or isinstance(error, BrokenPipeError):
            raise
        keys = {argument.partition("=")[0].lstrip("+") for argument in arguments}
        if keys.isdisjoint({"exp", "task"}):
            # Whatever Hydra missed, it missed because no recipe was there to set it.
            names = ", ".join(recipes(arguments)) or "(there is none yet)"
            words = f"no experiment is named: add +exp=NAME, where NAME is one of {names}"
        else:
            words = sentence(error)
        raise UserError(words) from error


def sentence(error: BaseException) -> str:
    """One sentence for an error of Hydra, OmegaConf or the YAML reader."""
    text = str(error)
    cause = error if error.__cause__ is None else error.__cause__
    override = re.search(r"Could not override '(.+?)'|merging override (.+)", text)
    key = (override[1] or override[2]) if override else getattr(cause, "full_key", None)

    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        return _missing(str(missing), getattr(error, "options", None))
    if "No match in the defaults list" in text:
        if key == "exp":
            return "write +exp=NAME with the plus sign: the recipe is added to the defaults"
        return (
            f"unknown group {key!r}: the groups are exp (with the plus sign, +exp=NAME), task, "
            "cluster, and those of the recipe's task"
        )
    if text.startswith("Ambiguous value"):
        argument = text.split("'")[1]
        name, _, value = argument.partition("=")
        return (
            f"{argument} has several values: add -m to run one experiment for each, "
            f"or write a list as {name}=[{value}]"
        )
    if type(error).__name__ == "OverrideParseException":
        argument = getattr(error, "override", text)
        return (
            f"cannot read {argument!r}: write KEY=VALUE, with quotes around a value that has "
            "special characters, as in \"budget.params='>=2e9'\""
        )
    if "' not in '" in str(cause):
        return _unknown_key(str(key), getattr(cause, "object_type", None))
    if "is not a subclass of" in str(cause):
        return f"{key}: this is a group of settings, set one of them as in GROUP.KEY=VALUE"
    if isinstance(error, OSError):
        return f"cannot write to {error.filename}: {error.strerror}; choose another hydra.run.dir"
    words = re.split(r"\n\s+full_key:", str(cause))[0]
    words = " ".join(words.split()) or type(cause).__name__
    return f"{key}: {words[0].lower()}{words[1:]}" if key else words


def _missing(file: str, options: Sequence[str] | None) -> str:
    group, _, name = file.rpartition("/")
    kind = "recipe" if group == "exp" else group or "configuration"
    choices = sorted(options or [])
    if not choices:
        return f"unknown {kind} {name!r}: there is no {file}.yaml, and nothing else in {group!r}"
    return f"unknown {kind} {name!r}, choose one of {', '.join(choices)}{_meant(name, choices)}"


def _unknown_key(key: str, schema: Any) -> str:
    parent, _, last = key.rpartition(".")
    names: list[str] = []
    if dataclasses.is_dataclass(schema):
        names = [f.name for f in dataclasses.fields(schema)]
    where = f" {parent} has" if parent else " there are"
    known = f":{where} {', '.join(names)}" if names else ""
    return f"unknown setting {key!r}{known}{_meant(last, names, parent)}"


def _meant(name: str, choices: Sequence[str], parent: str = "") -> str:
    close = difflib.get_close_matches(name, choices, n=1)
    prefix = f"{parent}." if parent else ""
    return f"; did you mean {prefix + close[0]!r}?" if close else ""


def _origin(error: BaseException) -> str:
    """The top-level package whose code raised, the standard library aside."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames]
    return next((m for m in reversed(modules) if m not in sys.stdlib_module_names), "")
