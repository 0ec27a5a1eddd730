"""All tests of the profiling tasks measure."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def quiet(frozen_modules):
    pass
