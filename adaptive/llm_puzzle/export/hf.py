"""A child as a self-contained Hugging Face directory, with transformers' ``per_layer_config``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptive.core.run import atomic_path
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.export.engines import Engine


def write(source: Path, target: Path, engine: Engine | None = None) -> None:
    """Copies a child's directory and writes ``per_layer_config`` into its ``config.json``.

    See :meth:`Format.write`. The directory has its own modelling file already.
    """
    with atomic_path(target) as temporary:
        shutil.copytree(source, temporary)
        path = temporary / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        blocks = [BlockOption.from_config(entry) for entry in config["blocks"]]
        config["per_layer_config"] = per_layer_config(blocks)
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def per_layer_config(blocks: Sequence[BlockOption]) -> dict[str, dict[str, Any]]:
    """What differs by layer, as transformers 5.14 and later say it.

    ``num_key_value_heads``, ``intermediate_size`` and ``skip`` are theirs. They have no word for a
    matrix in place of a sub-block; ``linear`` lists those, and is given for every layer where any
    has one, since attributes that are not global must be. So must the sizes: a half that has none
    gives those of the largest, which nothing reads.

    Returns:
        Layer numbers, as text, to what overrides the model's configuration there.
    """
    heads = max((b.attention.kv_heads for b in blocks), default=0)
    width = max((b.ffn.width for b in blocks), default=0)
    linear = any("linear" in (b.attention.kind, b.ffn.kind) for b in blocks)
    entries = {}
    for i, block in enumerate(blocks):
        halves = {"attention": block.attention.kind, "mlp": block.ffn.kind}
        entry: dict[str, Any] = {
            "num_key_value_heads": block.attention.kv_heads or heads,
            "intermediate_size": block.ffn.width or width,
        }
        if skipped := [name for name, kind in halves.items() if kind == "no_op"]:
            entry["skip"] = skipped
        if linear:
            entry["linear"] = [name for name, kind in halves.items() if kind == "linear"]
        entries[str(i)] = entry
    return entries
