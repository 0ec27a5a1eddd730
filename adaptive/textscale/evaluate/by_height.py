"""Recall by the height of words: small text is where input scale matters.

A word's height is the short side of its smallest enclosing rectangle, in pixels of the image that
it is annotated in. Shapes: N words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adaptive.textscale.evaluate.icdar import Matches
from adaptive.textscale.words import Words, short_sides

BANDS = {
    "h_lt16": (0.0, 16.0),
    "h16_24": (16.0, 24.0),
    "h24_40": (24.0, 40.0),
    "h_gt40": (40.0, float("inf")),
}
"""Name in summaries to lowest and highest height in pixels, the highest excluded."""


@dataclass(frozen=True)
class HeightRecall:
    """Recall among the words of a band of heights.

    Attributes:
        words: how many count.
        matches: how many of them were found.
    """

    words: int
    matches: int

    @property
    def recall(self) -> float | None:
        """Share found, 0 to 1; None where there are no words."""
        return self.matches / self.words if self.words else None


def recall_by_height(images: Iterable[tuple[Words, Matches]]) -> dict[str, HeightRecall]:
    """Recall in each of :data:`BANDS`.

    Args:
        images: annotations and their matches, of each image.
    """
    words, right = dict.fromkeys(BANDS, 0), dict.fromkeys(BANDS, 0)
    for annotated, matches in images:
        height_N = short_sides(annotated.quad_N42)
        for name, (low, high) in BANDS.items():
            inside_N = matches.care_N & (height_N >= low) & (height_N < high)
            words[name] += int(inside_N.sum())
            right[name] += int((inside_N & matches.found_N).sum())
    return {name: HeightRecall(words[name], right[name]) for name in BANDS}
