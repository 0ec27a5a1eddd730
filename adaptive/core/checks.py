"""Checks of settings: sentences that name the setting and what it must be."""

from __future__ import annotations

from typing import Any

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry


def positive(prefix: str, settings: Any, *names: str) -> None:
    """Refuses values that are not above 0; ``prefix`` is empty at the top."""
    for name in names:
        if not getattr(settings, name) > 0:
            where = f"{prefix}.{name}" if prefix else name
            raise UserError(f"{where}={getattr(settings, name)} must be above 0")


def not_negative(prefix: str, settings: Any, *names: str) -> None:
    """Refuses values below 0."""
    for name in names:
        if not getattr(settings, name) >= 0:
            raise UserError(f"{prefix}.{name}={getattr(settings, name)} must not be negative")


def share(prefix: str, settings: Any, *names: str) -> None:
    """Refuses values outside 0 to 1."""
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise UserError(f"{prefix}.{name}={getattr(settings, name)} must lie in 0 to 1")


def known(key: str, registry: Registry[Any], *names: str) -> None:
    """Refuses names that a registry does not hold; ``key`` is the setting that gave them."""
    for name in names:
        if name not in registry:
            raise UserError(f"{key}: {registry.unknown(name)}")
