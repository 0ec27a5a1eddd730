"""Which engine loads a child: one row an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive.llm_puzzle.export.engines import ENGINES
from adaptive.llm_puzzle.export.formats import EXPORTS
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig

STRICT = "its FFN entries take no intermediate_size; search.portable={} leaves it out"


@dataclass(frozen=True)
class Row:
    """Whether an engine loads a child.

    Attributes:
        engine: its name in ``ENGINES``.
        title: as its authors write it.
        export: the format that it reads.
        written: whether this run wrote that.
        loads: whether the engine runs the child as it is written there.
        reasons: why not, those of a layer begin with its number.
    """

    engine: str
    title: str
    export: str
    written: bool
    loads: bool
    reasons: tuple[str, ...]

    @property
    def answer(self) -> str:
        """Yes, or why not, in a few words."""
        if self.loads:
            return "yes" if self.written else f"yes, with {self.export} in export"
        rest = f" (and {len(self.reasons) - 1} more)" if len(self.reasons) > 1 else ""
        return f"no: {self.reasons[0]}{rest}"


def compatibility(
    config: PuzzleModelConfig, written: Sequence[str], portable: str | None = None
) -> list[Row]:
    """A row for every engine.

    Args:
        config: of the child.
        written: the formats that it was written in.
        portable: the engine that they were written for, if for one in particular.
    """
    rows = []
    for name, engine in ENGINES.items():
        reasons = list(EXPORTS[engine.export].rules.reasons(config))
        reasons += [reason for reason in engine.rules.reasons(config) if reason not in reasons]
        as_written = portable is not None and ENGINES[portable].strict_ffn
        if engine.strict_ffn and not as_written:
            reasons.append(STRICT.format(name))
        row = Row(
            name, engine.title, engine.export, engine.export in written, not reasons, tuple(reasons)
        )
        rows.append(row)
    return rows
