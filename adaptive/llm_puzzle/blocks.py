"""What a layer may be given: options for its attention, options for its feed-forward network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttentionOption:
    """One attention sub-block.

    Attributes:
        kind: ``gqa``, ``linear`` or ``no_op``.
        kv_heads: key-value heads of ``gqa``, else 0.
        window: sliding window in tokens, or ``None`` for full causal attention.
        bits: format of its matrices, ``fp8`` or ``int4``; ``None`` is the model's own.
    """

    kind: str
    kv_heads: int = 0
    window: int | None = None
    bits: str | None = None

    @property
    def label(self) -> str:
        name = f"kv{self.kv_heads}" if self.kind == "gqa" else self.kind
        return f"{name}@{self.bits}" if self.bits else name

    def to_config(self) -> dict[str, Any]:
        """The entry of ``PuzzleModelConfig.blocks``."""
        bits = {"bits": self.bits} if self.bits else {}
        if self.kind != "gqa":
            return {"kind": self.kind, **bits}
        window = {"sliding_window": self.window} if self.window else {}
        return {"kind": "gqa", "num_key_value_heads": self.kv_heads, **window, **bits}

    @staticmethod
    def from_config(entry: dict[str, Any]) -> AttentionOption:
        return AttentionOption(
            entry["kind"],
            entry.get("num_key_value_heads", 0),
            entry.get("sliding_window"),
            entry.get("bits"),
        )


@dataclass(frozen=True)
class FFNOption:
    """One feed-forward sub-block: ``mlp`` of some width, ``linear`` or ``no_op``.

    ``bits`` is the format of its matrices, as in :class:`AttentionOption`.
    """

    kind: str
    width: int = 0
    bits: str | None = None

    @property
    def label(self) -> str:
        name = f"ffn{self.width}" if self.kind == "mlp" else self.kind
        return f"{name}@{self.bits}" if self.bits else name

    def to_config(self) -> dict[str, Any]:
        """The entry of ``PuzzleModelConfig.blocks``."""
        bits = {"bits": self.bits} if self.bits else {}
        if self.kind != "mlp":
            return {"kind": self.kind, **bits}
        return {"kind": "mlp", "intermediate_size": self.width, **bits}

    @staticmethod
    def from_config(entry: dict[str, Any]) -> FFNOption:
        return FFNOption(entry["kind"], entry.get("intermediate_size", 0), entry.get("bits"))


@dataclass(frozen=True)
class BlockOption:
    """One whole layer: an attention option with a feed-forward option."""

    attention: AttentionOption
    ffn: FFNOption

    @property
    def halves(self) -> tuple[AttentionOption, FFNOption]:
        return self.attention, self.ffn

    @property
    def label(self) -> str:
        return f"{self.attention.label}+{self.ffn.label}"

    def to_config(self) -> dict[str, dict[str, Any]]:
        return {"attention": self.attention.to_config(), "ffn": self.ffn.to_config()}

    @staticmethod
    def from_config(entry: dict[str, dict[str, Any]]) -> BlockOption:
        return BlockOption(
            AttentionOption.from_config(entry["attention"]), FFNOption.from_config(entry["ffn"])
        )


NO_ATTENTION = AttentionOption("no_op")
NO_FFN = FFNOption("no_op")


Option = AttentionOption | FFNOption | BlockOption
"""What a library holds a variant of: either half of a layer, or both, trained together."""


def block_of(option: Option) -> BlockOption:
    """The layer that holds this option and nothing else."""
    if isinstance(option, BlockOption):
        return option
    if isinstance(option, AttentionOption):
        return BlockOption(option, NO_FFN)
    return BlockOption(NO_ATTENTION, option)


def side(option: Option) -> str:
    """``"attention"`` or ``"ffn"``: which half of a layer the option fills; ``"block"``: both."""
    if isinstance(option, BlockOption):
        return "block"
    return "attention" if isinstance(option, AttentionOption) else "ffn"
