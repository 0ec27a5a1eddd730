"""The formats that children are exported to; a new one is one more row and its writer."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.llm_puzzle.export.engines import EVERY_BIAS, Engine
from adaptive.llm_puzzle.export.rules import Rules

if TYPE_CHECKING:
    from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig


@dataclass(frozen=True)
class Format:
    """A form of a child on disk.

    Attributes:
        title: its name in reports.
        path: where it is written, relative to the stage's directory.
        rules: what it can express; the rest is refused.
        entry: ``module:function`` of its writer, imported when it is needed; called with the
            child's Hugging Face directory, the path to write and the :class:`Engine` that has to
            load it (or ``None``).
        preparation: likewise, of a function that gets the parent's directory before anything is
            computed, and refuses one whose children it could not write.
    """

    title: str
    path: str
    rules: Rules
    entry: str
    preparation: str | None = None

    def prepare(self, parent: Path) -> None:
        """Raises UserError where no child of a parent can be written, or a package is missing."""
        if self.preparation is not None:
            _imported(self.preparation)(parent)

    def check(self, config: PuzzleModelConfig) -> None:
        """Raises UserError where the format cannot express a child: which layer, and why."""
        for reason in self.rules.reasons(config):
            raise UserError(
                f"{self.title} cannot express this child ({reason}); leave it out of `export` or "
                "search a space without that"
            )

    def write(self, source: Path, target: Path, engine: Engine | None = None) -> None:
        """Writes the child in ``source``, a Hugging Face directory, whole or not at all.

        Args:
            source: as ``save_child`` leaves it.
            target: file or directory to make or replace.
            engine: that has to load it, where the format leaves a choice.

        Raises:
            UserError: the format cannot express the child, or a package is missing.
        """
        _imported(self.entry)(source, target, engine)


def _imported(entry: str) -> Any:
    module, function = entry.split(":")
    return getattr(importlib.import_module(module), function)


EXPORTS: Registry[Format] = Registry("export")

_PACKAGE = "adaptive.llm_puzzle.export"

EXPORTS.register("hf")(
    Format(
        "Hugging Face directory",
        "hf",
        Rules(
            linear_attention=True,
            linear_ffn=True,
            windows=True,
            qk_norm=True,
            biases=EVERY_BIAS,
            activations=None,
        ),
        f"{_PACKAGE}.hf:write",
    )
)
# It has a field for windows, which no reader heeds: a child that slides would run without.
EXPORTS.register("nemotron_nas")(
    Format(
        "nemotron-nas (DeciLM)",
        "nemotron_nas",
        Rules(
            linear_attention=True,
            linear_ffn=True,
            biases=frozenset({"attention", "mlp"}),
            activations=None,
        ),
        f"{_PACKAGE}.nemotron_nas:write",
    )
)
EXPORTS.register("gguf")(
    Format(
        "GGUF (deci)",
        "gguf/model.gguf",
        Rules(linear_attention=True, biases=EVERY_BIAS),
        f"{_PACKAGE}.gguf_file:write",
        f"{_PACKAGE}.gguf_file:prepare",
    )
)
