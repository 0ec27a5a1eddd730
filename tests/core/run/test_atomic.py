from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core.run.atomic import (
    TEMPORARY,
    atomic_path,
    atomic_write_json,
    atomic_write_text,
    sweep_temporaries,
    to_plain,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_failed_write_leaves_the_old_content_and_no_debris(tmp_path):
    target = tmp_path / "x.txt"
    atomic_write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_readers_see_the_old_content_until_the_block_ends(tmp_path):
    target = tmp_path / "x.txt"
    atomic_write_text(target, "old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "checkpoint"
    for content in ("a", "b"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / f"{content}.txt").write_text(content)
    assert names(target) == ["b.txt"]
    assert names(tmp_path) == ["checkpoint"]


def test_the_temporary_keeps_the_suffix_that_writers_look_at(tmp_path):
    with atomic_path(tmp_path / "deep" / "x.npz") as temporary:
        np.savez(temporary, a=np.ones(2))
    assert names(tmp_path / "deep") == ["x.npz"]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / f"{TEMPORARY}7-x").write_text("half")
    (tmp_path / f"{TEMPORARY}7-d").mkdir()
    (tmp_path / f"{TEMPORARY}7-d" / f"{TEMPORARY}7-y").write_text("half")
    (tmp_path / "keep.tmp-x").write_text("whole")
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["keep.tmp-x"]


class Colour(enum.Enum):
    RED = 1


@dataclass
class Inner:
    path: Path
    colour: Colour


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Inner(Path("a/b"), Colour.RED), {"path": "a/b", "colour": "RED"}),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (math.inf, "inf"),
        (np.float64("nan"), "nan"),
        (True, True),
    ],
)
def test_plain(value, plain):
    assert to_plain(value) == plain
    assert type(to_plain(value)) is type(plain)


def test_what_json_cannot_say_is_refused(tmp_path):
    with pytest.raises(TypeError, match="object"):
        atomic_write_json(tmp_path / "x.json", {"a": object()})
    assert names(tmp_path) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(json_values)
def test_plain_values_survive_json_exactly(value):
    plain = to_plain(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert to_plain(plain) == plain
