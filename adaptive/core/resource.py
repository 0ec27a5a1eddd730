"""Resources: what a choice spends, in which unit, and how people write it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry

Kind = Literal["time", "bytes", "count", "rate"]

_TIME = {
    **{"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6)},
    **{"ms": Fraction(1, 10**3), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)},
}
_BYTES = {"b": Fraction(1)} | {
    f"{letter}{suffix}": Fraction(base ** (power + 1))
    for power, letter in enumerate("kmgtp")
    for suffix, base in (("b", 1000), ("ib", 1024))
}
# "b" is the billion of "7B parameters"; "g" the giga of "12 GFLOP".
_PREFIX = {"": 0, "k": 3, "m": 6, "g": 9, "b": 9, "t": 12, "p": 15}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(.*?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Resource:
    """Something that a choice spends.

    Attributes:
        name: the key used in costs and budgets, for example ``"latency"``.
        unit: the unit of its numbers, for example ``"s"``.
        kind: decides which unit strings are understood and how values are printed.
        words: further spellings of the unit accepted after a number (``"12 GFLOPs"``).
    """

    name: str
    unit: str
    kind: Kind
    words: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool:
        """True for rates: a plain limit on them is a lower limit."""
        return self.kind == "rate"

    @property
    def units(self) -> Mapping[str, Fraction]:
        """Lower-case unit strings accepted after a number, with their value in ``unit``."""
        if self.kind == "time":
            return _TIME
        if self.kind == "bytes":
            return _BYTES
        words = {"", self.unit.lower(), *(word.lower() for word in self.words)}
        return {
            letter + word: Fraction(10**power)
            for letter, power in _PREFIX.items()
            for word in words
        }

    @property
    def examples(self) -> str:
        """Two quantities that a message can show."""
        return {
            "time": "30ms or 1.5s",
            "bytes": "80GiB or 500MB",
            "count": f"2e9 or 1.5B {self.unit}",
            "rate": f"5000 or 5K {self.unit}",
        }[self.kind]


RESOURCES: Registry[Resource] = Registry("resource")
for _resource in (
    Resource("latency", "s", "time"),
    Resource("throughput", "tok/s", "rate", ("/s", "tokens/s", "images/s", "img/s")),
    Resource("memory", "bytes", "bytes"),
    Resource("params", "params", "count", ("parameters",)),
    Resource("flops", "FLOP", "count", ("flops",)),
    Resource("tokens", "tokens", "count", ("tok",)),
    Resource("pixels", "pixels", "count", ("px", "pixel")),
):
    RESOURCES.register(_resource.name)(_resource)


def parse_quantity(text: Any, resource: Resource | str, *, setting: str = "") -> float:
    """Reads a number with an optional unit, without regard to case: ``"80GiB"``, ``"30 ms"``.

    Decimal and binary prefixes are told apart (1 KB = 1000 bytes, 1 KiB = 1024); counts take K, M,
    G or B (1e9) and T. The result is the float nearest to what was written.

    Args:
        text: the number, in the resource's unit if it has none of its own.
        resource: the resource, or its name.
        setting: name of the setting for error messages; the resource's name if empty.

    Returns:
        The value in the resource's unit.

    Raises:
        UserError: if the text is not a finite number followed by a known unit.
    """
    resource = RESOURCES[resource] if isinstance(resource, str) else resource
    setting = setting or resource.name
    if not isinstance(text, str):
        try:
            value = math.nan if isinstance(text, bool) else float(text)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"{setting}={text} is not a finite number, write for example {resource.examples}"
            )
        return value
    match = _NUMBER.fullmatch(text)
    if not match:
        raise UserError(
            f"{setting}={text!r} is not a quantity, write for example {resource.examples}"
        )
    number, unit = match.groups()
    factor = resource.units.get(unit.lower().replace(" ", "")) if unit else Fraction(1)
    if factor is None:
        raise UserError(
            f"{setting}={text!r} has the unknown unit {unit!r}, "
            f"write for example {resource.examples}"
        )
    try:
        return float(Fraction(number) * factor)
    except OverflowError:
        raise UserError(f"{setting}={text!r} is too large for a number") from None


def format_quantity(
    value: float,
    resource: Resource | str,
    *,
    digits: int = 4,
    toward: Literal["nearest", "up", "down"] = "nearest",
) -> str:
    """Writes a value with a fitting unit, such that :func:`parse_quantity` reads it back.

    Args:
        value: the value in the resource's unit.
        resource: the resource, or its name.
        digits: significant digits.
        toward: rounding; a limit that is printed to be typed in again must not round past what
            can be reached.
    """
    resource = RESOURCES[resource] if isinstance(resource, str) else resource
    if not math.isfinite(value):
        return f"{value} {resource.unit}"
    if resource.kind == "time":
        scales = [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)]
    elif resource.kind == "bytes":
        scales = [(f"{p}iB", 1024.0**n) for n, p in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))]
        scales.append(("B", 1.0))
    else:
        billion = "G" if resource.unit == "FLOP" else "B"
        prefixes = [("T", 1e12), (billion, 1e9), ("M", 1e6), ("K", 1e3), ("", 1.0)]
        scales = [(f"{prefix} {resource.unit}", scale) for prefix, scale in prefixes]
    unit, scale = next((u, s) for u, s in scales if abs(value) >= s or (u, s) == scales[-1])
    if value == 0:
        unit, scale = next((u, s) for u, s in scales if s == 1.0)
    space = "" if " " in unit else " "  # "8 GiB", but "8B params"
    return f"{_rounded(value / scale, digits, toward)}{space}{unit}"


def _rounded(value: float, digits: int, toward: str) -> str:
    if value == 0:
        return "0"
    step = Fraction(10) ** (math.floor(math.log10(abs(value))) - digits + 1)
    steps = Fraction(value) / step
    whole = {"nearest": round, "up": math.ceil, "down": math.floor}[toward](steps)
    return f"{float(whole * step):.{digits + 1}g}"
