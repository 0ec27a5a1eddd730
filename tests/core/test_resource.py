from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive.core import RESOURCES, Resource, UserError, format_quantity, parse_quantity

GOLDEN = [
    ("80GiB", "memory", 80 * 2**30),
    ("80 gib", "memory", 80 * 2**30),
    ("1.5 MB", "memory", 1_500_000),
    ("512", "memory", 512),
    ("30ms", "latency", 0.03),
    ("1.1ms", "latency", 0.0011),  # 1.1 * 1e-3 would be off by one digit in the last place
    ("250us", "latency", 250e-6),
    ("250 µs", "latency", 250e-6),
    ("2min", "latency", 120.0),
    (0.03, "latency", 0.03),
    ("7B", "params", 7e9),
    ("1.5e9", "params", 1.5e9),
    ("350M params", "params", 350e6),
    ("12 GFLOPs", "flops", 12e9),
    ("1.2 TFLOP", "flops", 1.2e12),
    ("5K tok/s", "throughput", 5000),
    ("120 images/s", "throughput", 120),
    ("1M px", "pixels", 1e6),
    ("196 tokens", "tokens", 196),
]


@pytest.mark.parametrize(("text", "resource", "value"), GOLDEN)
def test_quantities_are_read_exactly(text, resource, value):
    assert parse_quantity(text, resource) == value


@pytest.mark.parametrize(
    ("text", "resource", "said"),
    [
        ("30 parsecs", "latency", "unknown unit 'parsecs'"),
        ("30ms", "memory", "unknown unit 'ms'"),
        ("fast", "latency", "not a quantity"),
        ("", "latency", "not a quantity"),
        (math.inf, "latency", "not a finite number"),
        (True, "latency", "not a finite number"),
        (None, "latency", "not a finite number"),
        ("1e400", "latency", "too large"),
    ],
)
def test_nonsense_is_refused_with_an_example(text, resource, said):
    with pytest.raises(UserError, match=said) as error:
        parse_quantity(text, resource, setting="budget.x")
    assert "budget.x" in str(error.value)


@pytest.mark.parametrize("name", sorted(RESOURCES))
@given(value=st.floats(1e-9, 1e15), toward=st.sampled_from(["nearest", "up", "down"]))
def test_what_is_printed_can_be_read_again(name, value, toward):
    read = parse_quantity(format_quantity(value, name, digits=4, toward=toward), name)
    assert read == pytest.approx(value, rel=1.1e-3)
    if toward == "up":
        assert read >= value * (1 - 1e-12)
    if toward == "down":
        assert read <= value * (1 + 1e-12)


@pytest.mark.parametrize(
    ("value", "resource", "text"),
    [
        (0.03, "latency", "30 ms"),
        (0.0, "latency", "0 s"),
        (80 * 2**30, "memory", "80 GiB"),
        (8_030_261_248, "params", "8.03B params"),
        (12e9, "flops", "12G FLOP"),
        (5000, "throughput", "5K tok/s"),
        (196, "tokens", "196 tokens"),
    ],
)
def test_printed_units(value, resource, text):
    assert format_quantity(value, resource) == text


def test_a_family_registers_its_own_resource():
    energy = Resource("energy-of-this-test", "J", "count", ("joule",))
    RESOURCES.register(energy.name)(energy)
    assert parse_quantity("2 kJ", energy.name) == 2000
    assert parse_quantity("3 joule", energy) == 3
    with pytest.raises(ValueError, match="already registered"):
        RESOURCES.register(energy.name)(energy)
