"""The tables of the README say what the result files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "readme_tables.py"
    spec = importlib.util.spec_from_file_location("readme_tables", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_results(script):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.rewritten(text) == text


def test_a_number_that_was_typed_by_hand_is_replaced(script):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| **" in text
    assert script.rewritten(text.replace("| **", "| **9")) == text


@pytest.mark.parametrize("name", ["puzzle", "puzzle_speed", "costs", "vits", "solvers"])
def test_a_missing_table_is_named(script, name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match=name):
        script.rewritten(text.replace(f"<!-- {name} -->", ""))
