"""The code blocks of the documentation: what they are, and whether their commands would be taken.

The first word after a fence is the language. Blocks of ``sh``, ``python`` and ``yaml`` say in the
second what becomes of them:

- ``run``: the tests run it, in a directory that all blocks of its page share, in their order;
- ``compose``: it needs a GPU, a large model, time or the reader's data, so its commands are only
  composed to a validated configuration, its imports made, and the files that it names looked for;
- ``file=NAME``: it is the content of a file, which later blocks of the page find there.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
from collections.abc import Container, Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

import adaptive
from adaptive.core.run import Experiment
from adaptive.core.run.launch import LAUNCHERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHECKED = ("sh", "python", "yaml")
KINDS = re.compile(r"run|compose|file=\S+")
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?<!\S)#.*")
# Options of the command line that are not settings of an experiment.
PRINTING = {"--help", "--cfg", "job", "--resolve"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: file name.
        line: of its fence, from 1.
        language: first word of the info string.
        kind: the second, "" where there is none.
        text: what is between the fences.
    """

    page: str
    line: int
    language: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        language, _, kind = match[1].strip().partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page.name, line, language, kind.strip(), match[2]))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, comments left out and lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(os.path.expandvars(COMMENT.sub("", line)))
        if words:
            yield words


def composed(words: list[str], config_dir: Path | None = None) -> list[Experiment]:
    """The experiments that a command would run: several for a sweep.

    Args:
        words: after ``python -m adaptive.run``.
        config_dir: where a relative ``--config-dir`` starts from.
    """
    words = [word for word in words if word not in PRINTING]
    if not words:
        return []
    directory = None
    if "--config-dir" in words:
        at = words.index("--config-dir")
        directory = str((config_dir or ROOT) / words[at + 1])
        del words[at : at + 2]
    sweep = {"-m", "--multirun"} & set(words)
    clusters = [word.removeprefix("cluster=") for word in words if word.startswith("cluster=")]
    sweep |= set(clusters)
    words = [word for word in words if word not in ("-m", "--multirun")]
    words = [word for word in words if not (clusters and is_about_the_sweep(word, clusters[0]))]
    overrides = OverridesParser.create().parse_overrides(words)
    choices = [
        list(o.sweep_string_iterator()) if o.is_sweep_override() else [None] for o in overrides
    ]
    assert sweep or not any(o.is_sweep_override() for o in overrides), "a sweep wants -m"
    experiments = []
    for chosen in product(*choices):
        plain = [
            word if value is None else f"{override.get_key_element()}={value}"
            for word, override, value in zip(words, overrides, chosen, strict=True)
        ]
        (recipe,) = (word for word in plain if word.startswith("+exp="))
        others = [word for word in plain if word != recipe]
        name = recipe.removeprefix("+exp=")
        experiments.append(adaptive.load(name, *others, config_dir=directory))
    return experiments


def is_about_the_sweep(word: str, cluster: str) -> bool:
    """Whether a word chooses a launcher or is a setting of it; fails where it has no such one."""
    if word.startswith("hydra.launcher."):
        setting = word.removeprefix("hydra.launcher.").partition("=")[0]
        launcher = LAUNCHERS[{"local": "joblib"}.get(cluster, cluster)]
        assert setting in {f.name for f in fields(launcher[0])}, f"{cluster} has no {setting}"
        return True
    return word.startswith("cluster=")


def check_command(words: list[str], folder: Path) -> None:
    """Fails where a command of a shell block would be refused, without running it.

    Args:
        words: of the command.
        folder: with the files of the page.
    """
    while "=" in words[0]:  # environment variables before the command
        words = words[1:]
    program, *arguments = words
    if program == "torchrun":
        at = arguments.index("-m")
        program, arguments = "python", arguments[at:]
    if program == "adaptive":
        program, arguments = "python", ["-m", "adaptive.run", *arguments]
    match program, arguments:
        case "python", ["-m", "adaptive.run", *rest]:
            composed(rest, folder)
        case "python", [script, *rest] if script.endswith(".py"):
            path = folder / script if (folder / script).exists() else ROOT / script
            source = path.read_text(encoding="utf-8")
            unknown = [w for w in rest if w.startswith("--") and w.split("=")[0] not in source]
            assert not unknown or "adaptive.run" in source, f"{script} takes no {unknown}"
        case "make", [target, *_]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert f"\n{target}:" in makefile, f"the Makefile has no target {target}"
        case "jupytext", [*_, file]:
            assert (ROOT / file).is_file(), f"there is no {file}"
        case ("pip", ["install", *_]) | ("git", ["clone", *_]) | ("cd" | "tar" | "ls" | "cat", _):
            pass
        case _:
            raise AssertionError(f"nothing checks the command {shlex.join(words)!r}")


def check_python(block: Block, own: Container[str] = ()) -> None:
    """Fails where a Python block does not parse, imports what there is not, or loads an experiment
    that would be refused.

    Args:
        block: of a page.
        own: modules that the page makes itself.
    """
    for node in ast.walk(ast.parse(block.text, str(block))):
        match node:
            case ast.ImportFrom(module=str(module)) if module in own:
                pass
            case ast.Import(names):
                for alias in names:
                    importlib.import_module(alias.name)
            case ast.ImportFrom(module=str(module), names=names):
                home = importlib.import_module(module)
                for alias in names:
                    if not hasattr(home, alias.name):
                        importlib.import_module(f"{module}.{alias.name}")
            case ast.Call(ast.Attribute(ast.Name("adaptive"), "load"), arguments):
                adaptive.load(*(ast.literal_eval(argument) for argument in arguments))
