"""What the runs of a part found, as a file and as numbers of the summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.frontiers.children import REFERENCE
from adaptive.core.frontiers.curve import Curve, Half, Point
from adaptive.core.run.atomic import atomic_write_json

FILE = "part.json"


@dataclass(frozen=True)
class Part:
    """What the runs of a part found, as ``part.json`` holds it.

    Attributes:
        cost, quality: names of the numbers.
        more: whether more of each is better.
        curve: the points; each has the name of its run.
        budgets: names of all runs, the failed ones too, to what they might spend.
        folders: likewise to their directories among the part's.
        failed: names of runs to why they failed.
    """

    cost: str
    quality: str
    more: tuple[bool, bool]
    curve: Curve
    budgets: dict[str, str]
    folders: dict[str, str]
    failed: dict[str, str]

    @property
    def unmeasured(self) -> list[str]:
        """Names of the runs that ended well and yet are no points, the reference's own aside."""
        told = {REFERENCE, *self.failed, *(point.name for point in self.curve.points)}
        return [name for name in self.budgets if name not in told]

    @classmethod
    def read(cls, directory: Path) -> Part:
        """The part that a stage left."""
        found = json.loads((directory / FILE).read_text(encoding="utf-8"))
        curve, (cost, quality) = found["curve"], found["more"]
        reference = curve["reference"]
        return cls(
            found["cost"],
            found["quality"],
            (cost, quality),
            Curve(
                [Point(**point) for point in curve["points"]],
                None if reference is None else Point(**reference),
                Half(**curve["half"]),
            ),
            found["budgets"],
            found["folders"],
            found["failed"],
        )

    def write(self, directory: Path) -> None:
        """Writes ``part.json``."""
        atomic_write_json(directory / FILE, self)


def numbers(part: Part, home: Path) -> dict[str, Any]:
    """A part's share of the summary.

    Args:
        part: what its runs found.
        home: directory of its runs.
    """
    curve, half = part.curve, part.curve.half
    found: dict[str, Any] = {
        "points": len(curve.best),
        "at_half": half.quality,
        "at_half.kept": half.kept,
        "at_half.how": half.how,
        "cost": part.cost,
        "quality": part.quality,
        "reference.cost": None if curve.reference is None else curve.reference.cost,
        "reference.quality": None if curve.reference is None else curve.reference.quality,
        "runs": len(part.budgets),
        "runs.failed": len(part.failed),
        "runs.unmeasured": len(part.unmeasured),
    }
    for i, point in enumerate(curve.best):
        told = {"run": str(home / part.folders[point.name]), "budget": part.budgets[point.name]}
        told |= {key: getattr(point, key) for key in ("cost", "quality", "share", "kept")}
        found |= {f"{i}.{key}": value for key, value in told.items()}
    return found
