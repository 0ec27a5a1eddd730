"""What synthetic words say: a vocabulary of signs and pages, numbers, and strings of no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_SYMBOLS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789-&./"
_CURRENCY = "$€£"


def sign_text(rng: np.random.Generator) -> str:
    """A word as on signs, shop fronts and labels; at least two characters."""
    kind = rng.random()
    if kind < 0.12:
        return _number(rng)
    if kind < 0.24:
        return "".join(one_of(rng, _SYMBOLS) for _ in range(rng.integers(2, 9)))
    if kind < 0.44:
        return _cased(rng, _invented(rng))
    return _cased(rng, one_of(rng, _vocabulary("signs" if rng.random() < 0.7 else "prose")))


def prose_text(rng: np.random.Generator) -> str:
    """A word as on pages: mostly small letters, sometimes punctuation or a number."""
    kind = rng.random()
    if kind < 0.05:
        return _number(rng)
    word = _invented(rng) if kind < 0.2 else one_of(rng, _vocabulary("prose"))
    if kind > 0.9:
        word = word.capitalize()
    return word + (one_of(rng, ",.;?") if rng.random() < 0.12 else "")


@cache
def _vocabulary(name: str) -> list[str]:
    """The words of ``signs.txt`` or ``prose.txt`` beside this file."""
    files = resources.files("adaptive.textscale.data")
    return files.joinpath(f"{name}.txt").read_text("utf-8").split()


def one_of(rng: np.random.Generator, items: Sequence[str]) -> str:
    """A random item."""
    return items[int(rng.integers(len(items)))]


def _cased(rng: np.random.Generator, word: str) -> str:
    kind = rng.random()
    return word.upper() if kind < 0.45 else word.capitalize() if kind < 0.8 else word


def _invented(rng: np.random.Generator) -> str:
    """Syllables that can be said: names of places, people and products."""
    return "".join(
        one_of(rng, _CONSONANTS)
        + one_of(rng, _VOWELS)
        + (one_of(rng, _CONSONANTS) if rng.random() < 0.35 else "")
        for _ in range(rng.integers(1, 5))
    )


def _number(rng: np.random.Generator) -> str:
    kind = rng.integers(5)
    if kind == 0:
        return f"{one_of(rng, _CURRENCY)}{rng.integers(1, 200)}.{rng.integers(10, 100)}"
    if kind == 1:
        return f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}"
    if kind == 2:
        return f"{rng.integers(5, 100)}%"
    if kind == 3:
        return f"#{rng.integers(1, 60):02d}-{rng.integers(1, 400):02d}"
    return str(rng.integers(10, 10 ** int(rng.integers(2, 9))))
