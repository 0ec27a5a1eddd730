"""What users import stays what it is: a change of the public names is seen, and meant."""

from __future__ import annotations

import ast
import difflib
import importlib

import public_api
import pytest

LAZY = ("adaptive.llm_puzzle", "adaptive.quadformer", "adaptive.textscale")


def test_the_public_names_are_those_that_are_listed():
    listed = public_api.LISTED.read_text(encoding="utf-8")
    found = public_api.listing()
    changes = difflib.unified_diff(
        listed.splitlines(), found.splitlines(), "tests/api.txt", "the sources", lineterm="", n=2
    )
    assert found == listed, "\n".join(
        ["the public API changed; if that is meant: make api", *changes]
    )


SAMPLE = """
@dataclass(frozen=True)
class Thing(Base):
    size: int = 1
    alpha = 0.5
    _cache: int = 0

    def __init__(self, other: str): ...

    @classmethod
    def of(cls, text: str) -> Thing: ...

    @property
    def area(self) -> float: ...

    def _hidden(self): ...
"""


def test_a_class_is_listed_with_its_fields_and_its_methods():
    [node] = ast.parse(SAMPLE).body
    assert list(public_api.described("Thing", node)) == [
        "  dataclass(frozen=True) class Thing(Base)",
        "    size: int = 1",
        "    alpha = 0.5",
        "    __init__(self, other: str)",
        "    classmethod of(cls, text: str) -> Thing",
        "    property area: float",
    ]


@pytest.mark.parametrize("package", LAZY)
def test_lazy_names_are_those_of_the_listing_and_of_no_module(package):
    """A module of the same name would take the name's place once it is imported."""
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    folder = public_api.ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.iterdir() if path.suffix in ("", ".py")}
    assert not modules & set(module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'magic'"):
        _ = module.magic


@pytest.mark.slow  # imports everything
@pytest.mark.parametrize("package", public_api.PUBLIC)
def test_public_names_can_be_imported(package):
    module = importlib.import_module(package)
    missing = [name for name in public_api.names(package) if not hasattr(module, name)]
    assert missing == []
