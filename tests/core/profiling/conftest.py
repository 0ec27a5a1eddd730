"""All tests of the profiling tasks measure, and fill tables of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MODEL = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
}


@pytest.fixture(autouse=True, scope="module")
def quiet(frozen_modules):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The directory of a model that is its configuration alone."""
    directory = tmp_path_factory.mktemp("model")
    (directory / "config.json").write_text(json.dumps(MODEL))
    return directory


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the user's table is, far from the user's own."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTIVE_CACHE", str(directory))
        yield directory
