"""What tests of the core have in common."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="module")
def frozen_modules():
    """Clocks collect garbage before they measure; what pytest has imported needs no looking at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
