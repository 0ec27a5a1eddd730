"""The stage that writes the child in the forms asked for, and says who loads it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from adaptive.core.run import StageContext, atomic_write_json
from adaptive.llm_puzzle.export.compatibility import compatibility
from adaptive.llm_puzzle.export.engines import ENGINES
from adaptive.llm_puzzle.export.formats import EXPORTS
from adaptive.llm_puzzle.parent import parent_config

if TYPE_CHECKING:
    from adaptive.llm_puzzle.puzzle import Puzzle


def export(run: Puzzle, ctx: StageContext) -> None:
    """Writes ``hf``, ``nemotron_nas`` and ``gguf/model.gguf`` as configured, whole or not at all.

    ``compatibility.json`` has a record an engine: its name and title, the export that it reads,
    whether that was written, whether it loads the child, and the reasons if not. The summary gets
    ``export.formats`` and, for every engine, ``export.ENGINE``: "yes", or "no" and the first
    reason.
    """
    config, portable = run.config, run.config.search.portable
    source = ctx.input("child") / "model"
    child = parent_config(source)
    for name in config.export:  # nothing is written before everything can be
        EXPORTS[name].check(child)
    engine = None if portable is None else ENGINES[portable]
    for name in ctx.track(config.export, len(config.export), "writing", unit="format"):
        target = ctx.dir / EXPORTS[name].path
        if not target.exists():  # an earlier attempt may have finished it
            EXPORTS[name].write(source, target, engine)
    rows = compatibility(child, config.export, portable)
    records = [{**asdict(row), "answer": row.answer} for row in rows]
    atomic_write_json(ctx.dir / "compatibility.json", records)
    ctx.summary({"export.formats": ",".join(config.export)})
    ctx.summary({f"export.{row.engine}": row.answer for row in rows})
