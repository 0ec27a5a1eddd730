"""Stricter than the user's environment: shapes are checked, and warnings are errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging as absl_logging
from hypothesis import HealthCheck, settings
from jaxtyping import config, install_import_hook

# As the command line does, and before anything imports torch: see adaptive/run.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Workers share the cores, so each computes with one.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# OR-tools imports absl, whose log handler keeps the stderr of that moment: a file of pytest's.
# When Hydra sets up logging it closes all handlers; this one closes any stream but the real one.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Modules whose annotated shapes and types are checked at every call, under pytest alone. Those
# that tell users about wrong types stay out: their tests pass wrong types on purpose; and the
# quadtrees, whose results torch's compiler would have to construct through the checks.
SOLVERS = [path.stem for path in Path(__file__).parents[1].glob("adaptive/core/solvers/*.py")]
SHAPE_CHECKED = ["adaptive.core.choice", "adaptive.core.frontier", "adaptive.core.prior"]
SHAPE_CHECKED += [f"adaptive.core.solvers.{name}" for name in SOLVERS if name != "__init__"]
SHAPE_CHECKED += [
    f"adaptive.quadformer.{name}" for name in ("data", "demo", "evaluate", "mosaic", "train")
]
TEXT = [path.stem for path in Path(__file__).parents[1].glob("adaptive/textscale/[a-z]*")]
SHAPE_CHECKED += [f"adaptive.textscale.{name}" for name in TEXT if name != "adaptive_detector"]
install_import_hook(SHAPE_CHECKED, "typechecker.checked")

settings.register_profile(
    "two_cores", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("two_cores")


@pytest.fixture
def compiling() -> Iterator[None]:
    """For tests of ``torch.compile``, which cannot trace shape checks and counts recompilations."""
    import torch

    torch.compiler.reset()
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test data: ``ADAPTIVE_DATA``, or ``../shared/data`` beside the checkout."""
    given = os.environ.get("ADAPTIVE_DATA")
    path = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no test data at {path}: set ADAPTIVE_DATA to the folder that holds it")
    return path
