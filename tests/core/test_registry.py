from __future__ import annotations

import sys

import pytest

from adaptive.core import RESOURCES, SOLVERS, Registry, UserError
from adaptive.core.registry import announce


def test_names_lead_to_things():
    registry: Registry[int] = Registry("number")
    assert registry.register("one")(1) == 1
    assert registry["one"] == 1 and list(registry) == ["one"] and len(registry) == 1
    assert "one" in registry and "two" not in registry


def test_a_name_is_taken_once():
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="number 'one' is already registered"):
        registry.register("one")(2)


def test_an_unknown_name_gets_a_hint():
    registry: Registry[int] = Registry("number")
    registry.register("three")(3)
    registry.register("seven")(7)
    with pytest.raises(UserError) as error:
        registry["sevn"]
    assert str(error.value) == (
        "unknown number 'sevn', choose one of seven, three; did you mean 'seven'?"
    )
    assert "did you mean" not in registry.unknown("xyz")


def test_what_is_announced_is_imported_when_it_is_first_asked_for(tmp_path, monkeypatch):
    registry: Registry[int] = Registry("planet")
    (tmp_path / "far_planet.py").write_text(
        "from core_planets import registry\nregistry.register('pluto')(9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "core_planets", type(sys)("core_planets"))
    sys.modules["core_planets"].registry = registry
    registry.register("mars")(4)
    announce("planet", "pluto", "far_planet")
    assert "pluto" in registry and set(registry) == {"mars", "pluto"} and len(registry) == 2
    assert "did you mean 'pluto'" in registry.unknown("plutto")
    assert registry["mars"] == 4 and "far_planet" not in sys.modules
    assert registry["pluto"] == 9 and "far_planet" in sys.modules and len(registry) == 2


@pytest.mark.parametrize("registry", [RESOURCES, SOLVERS], ids=lambda registry: registry.kind)
def test_entries_of_the_core_are_documented(registry):
    for name, entry in registry.items():
        assert name == name.lower() and (entry.__doc__ or "").strip(), name


def test_the_core_registers_what_the_library_promises():
    assert {"latency", "throughput", "memory", "params", "flops", "tokens", "pixels"} <= set(
        RESOURCES
    )
    assert set(SOLVERS) == {"mip", "lagrangian", "greedy", "exhaustive"}
