"""The documentation does what it says: its commands run or compose, its links lead somewhere."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import (
    CHECKED,
    KINDS,
    PAGES,
    ROOT,
    Block,
    blocks_of,
    check_command,
    check_python,
    commands,
)

from adaptive.config import register
from adaptive.core.errors import UserError
from adaptive.core.frontiers import PartConfig
from adaptive.core.run import TASKS, TaskConfig

LINK = re.compile(r"\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `([a-z_0-9.]+)` \| `([^`]*)` \|", re.MULTILINE)
# The tasks whose settings a page explains.
SETTINGS = {
    "puzzle.md": ["puzzle"],
    "quadformer.md": ["quadformer_train", "quadformer_eval"],
    "puzzle-vit.md": ["puzzle_vit"],
    "textscale.md": ["textscale_detect", "textscale_eval", "textscale_train", "textscale_render"],
    "text-tokens.md": ["textscale_tokens"],
    "costs.md": ["profile", "verify_costs"],
    "frontiers.md": ["frontiers"],
}
# Groups that another page explains.
ELSEWHERE = {"puzzle-vit.md": ("quadformer.md", ("model.", "augment.", "data.", "evaluate."))}
FRAME = {field.name for field in dataclasses.fields(TaskConfig)}  # explained in the index
RUN = [page for page in PAGES if any(block.kind == "run" for block in blocks_of(page))]


def by_name(page: Path) -> str:
    return page.name


def write_files(page: Path, folder: Path) -> None:
    """The files that a page shows, where its commands look for them."""
    for block in blocks_of(page):
        if block.kind.startswith("file="):
            file = folder / block.kind.removeprefix("file=")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_block_says_what_becomes_of_it(page):
    undecided = [
        str(block)
        for block in blocks_of(page)
        if block.language in CHECKED and not KINDS.fullmatch(block.kind)
    ]
    assert undecided == [], "write run, compose or file=NAME after the language"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_command_composes(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PWD", str(tmp_path))
    write_files(page, tmp_path)
    own = {path.stem for path in tmp_path.glob("*.py")}
    for block in blocks_of(page):
        try:
            if block.language == "sh":
                for words in commands(block.text):
                    if block.kind == "compose" or "adaptive.run" in words:
                        check_command(words, tmp_path)
            elif block.language == "python" and not block.kind.startswith("file="):
                check_python(block, own)
            elif block.language == "yaml":
                assert yaml.safe_load(block.text), "an empty file"
        except (UserError, AssertionError, ImportError, SyntaxError, OSError, ValueError) as error:
            pytest.fail(f"{block}: {error}")


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("experiments/*.md")], ids=by_name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    dead = []
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def anchors(page: Path) -> set[str]:
    """Anchors of headings as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_messages_that_are_explained_are_those_of_the_program():
    """Three words of each message of the tables follow each other in a text of the source."""
    said = re.findall(r"^\| `(.+?)` ", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    known = "\n".join(text for path in ROOT.glob("adaptive/**/*.py") for text in texts(path))
    assert len(said) > 30
    strange = []
    for message in said:
        words = message.replace("...", " ").split()
        windows = (words[i : i + 3] for i in range(max(1, len(words) - 2)))
        if not any(" ".join(window) in known for window in windows):
            strange.append(message)
    assert strange == []


def texts(path: Path) -> Iterator[str]:
    """The string literals of a module, with a dot in the place of what is filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "." for p in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.stem != "index" and page.name not in index]
    assert missing == []


@pytest.mark.parametrize("page", SETTINGS)
def test_tables_of_settings_say_the_defaults(page):
    register()
    said = settings_of(page)
    other, groups = ELSEWHERE.get(page, (page, ()))
    if groups:
        said |= {k: value for k, value in settings_of(other).items() if k.startswith(groups)}
    expected: dict[str, Any] = {}
    for task in SETTINGS[page]:
        for key, value in defaults(TASKS[task].config()):
            assert expected.setdefault(key, value) == value, f"{key} has two defaults"
    assert said == expected


def test_the_table_of_a_frontiers_part_says_the_defaults():
    expected = dict(defaults(PartConfig(), "parts.NAME."))
    said = settings_of("frontiers.md", "part")
    assert {f"parts.NAME.{key}": value for key, value in said.items()} == expected


def settings_of(page: str, mark: str = "settings") -> dict[str, Any]:
    """The rows of a page's tables of settings."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    part = text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0]
    return {key: yaml.safe_load(value) for key, value in ROW.findall(part)}


def defaults(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted settings of a configuration with their values, as YAML has them."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not prefix and field.name in FRAME:
            continue
        if dataclasses.is_dataclass(value):
            yield from defaults(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, list(value) if isinstance(value, tuple) else value


def test_a_block_that_would_be_refused_is_found(tmp_path):
    """That is, the tests above can fail."""
    with pytest.raises(UserError, match="budget.latecny"):
        check_command(
            ["python", "-m", "adaptive.run", "+exp=puzzle_tiny", "budget.latecny=2x"], tmp_path
        )
    with pytest.raises(AssertionError, match="no target"):
        check_command(["make", "coffee"], tmp_path)
    with pytest.raises(AssertionError, match="nothing checks"):
        check_command(["curl", "example.org"], tmp_path)
    with pytest.raises(UserError, match="puzzle_big"):
        check_python(Block("x.md", 1, "python", "compose", 'adaptive.load("puzzle_big")'))
    with pytest.raises(ImportError):
        check_python(Block("x.md", 1, "python", "compose", "from adaptive.core import magic"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", RUN, ids=by_name)
def test_blocks_run(page, tmp_path):
    """In their order, in one directory, as a reader would who types them one after the other."""
    for name in ("experiments", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_files(page, tmp_path)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "ADAPTIVE_CACHE": str(tmp_path / "cache"),
        "MPLBACKEND": "agg",
    }
    for block in blocks_of(page):
        if block.kind != "run":
            continue
        command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euc"]
        done = subprocess.run(
            [*command, block.text], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
