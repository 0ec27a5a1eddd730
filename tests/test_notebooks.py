"""Notebooks run from their first cell to the last."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.py"))


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "own_family",
        "puzzle",
        "quadformer",
        "textscale",
        "tour",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    pytest.importorskip("nbmake")
    target = tmp_path / f"{path.stem}.ipynb"
    jupytext.write(jupytext.read(path), target)
    # A pytest of its own, without this project's settings: notebooks are run as users run them.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        str(target),
        "-q",
        f"--rootdir={tmp_path}",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "ADAPTIVE_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [*command, "-c", os.devnull], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
