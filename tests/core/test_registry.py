from __future__ import annotations

import pytest

from adaptive.core import RESOURCES, SOLVERS, Registry, UserError


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


@pytest.mark.parametrize("registry", [RESOURCES, SOLVERS], ids=lambda registry: registry.kind)
def test_entries_of_the_core_are_documented(registry):
    for name, entry in registry.items():
        assert name == name.lower() and (entry.__doc__ or "").strip(), name


def test_the_core_registers_what_the_library_promises():
    assert {"latency", "throughput", "memory", "params", "flops", "tokens", "pixels"} <= set(
        RESOURCES
    )
    assert set(SOLVERS) == {"mip", "lagrangian", "greedy", "exhaustive"}
