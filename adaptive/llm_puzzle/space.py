"""The search space: which options compete in each layer (Puzzle, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from adaptive.core.errors import UserError
from adaptive.llm_puzzle.blocks import (
    NO_ATTENTION,
    NO_FFN,
    AttentionOption,
    BlockOption,
    FFNOption,
)
from adaptive.llm_puzzle.settings import SpaceConfig

# What `space.bits` calls the formats of `core.cost`.
BITS = {16: None, 8: "fp8", 4: "int4"}

# Widths that keep tensor-core tiles full on a large FFN and vector lanes full on a small one.
_MULTIPLES = (256, 128, 64, 32, 16, 8)


@dataclass(frozen=True)
class LayerSpace:
    """The options of one layer; the parent's own sub-blocks come first in both lists."""

    attention: tuple[AttentionOption, ...]
    ffn: tuple[FFNOption, ...]

    @property
    def parent(self) -> BlockOption:
        return BlockOption(self.attention[0], self.ffn[0])

    @property
    def blocks(self) -> list[BlockOption]:
        """Every pair of options; the parent's comes first, FFN options vary fastest."""
        return [BlockOption(a, f) for a, f in product(self.attention, self.ffn)]

    def index(self, block: BlockOption) -> tuple[int, int]:
        """Where a block's halves stand among the attention and among the FFN options."""
        return self.attention.index(block.attention), self.ffn.index(block.ffn)

    @property
    def variants(self) -> list[AttentionOption | FFNOption]:
        """The sub-blocks that a library has to hold: all but the parent's own, the no-ops, and
        those of fewer bits, which are rounded from the others."""
        options = [*self.attention[1:], *self.ffn[1:]]
        return [option for option in options if option.kind != "no_op" and option.bits is None]


def search_space(config: SpaceConfig, parent: Sequence[BlockOption]) -> list[LayerSpace]:
    """The options of every layer of a parent.

    Args:
        config: which KV heads, widths and replacements to allow.
        parent: the parent's layers.

    Raises:
        UserError: a number of KV heads that does not divide the parent's, a width fraction
            outside (0, 1], bits that are not known, or a layer that the parent does not have.
    """
    if config.ffn_multiple is not None and config.ffn_multiple < 1:
        raise UserError(f"space.ffn_multiple={config.ffn_multiple} must be at least 1")
    if 16 not in config.bits or not set(config.bits) <= set(BITS):
        raise UserError(
            f"space.bits={config.bits} must hold 16, the parent's own, and may hold 8 and 4"
        )
    layers = range(len(parent)) if config.layers is None else config.layers
    for layer in layers:
        if not 0 <= layer < len(parent):
            raise UserError(
                f"space.layers names layer {layer}, but the parent's layers are "
                f"0..{len(parent) - 1}"
            )
    searched = set(layers)
    return [
        _layer_space(config, block)
        if i in searched
        else LayerSpace((block.attention,), (block.ffn,))
        for i, block in enumerate(parent)
    ]


def _layer_space(config: SpaceConfig, block: BlockOption) -> LayerSpace:
    attention = [block.attention]
    if block.attention.kind == "gqa":
        attention += _fewer_kv_heads(config, block.attention)
        if config.attention_linear:
            attention.append(AttentionOption("linear"))
    if config.attention_no_op and block.attention.kind != "no_op":
        attention.append(NO_ATTENTION)

    ffn = [block.ffn]
    if block.ffn.kind == "mlp":
        ffn += _narrower(config, block.ffn)
        if config.ffn_linear:
            ffn.append(FFNOption("linear"))
    if config.ffn_no_op and block.ffn.kind != "no_op":
        ffn.append(NO_FFN)
    for bits in sorted(set(config.bits) - {16}, reverse=True):
        attention += [replace(o, bits=BITS[bits]) for o in attention if _quantisable(o)]
        ffn += [replace(o, bits=BITS[bits]) for o in ffn if _quantisable(o)]
    return LayerSpace(tuple(attention), tuple(ffn))


def _quantisable(option: AttentionOption | FFNOption) -> bool:
    return option.kind != "no_op" and option.bits is None


def _fewer_kv_heads(config: SpaceConfig, parent: AttentionOption) -> list[AttentionOption]:
    if config.kv_heads is None:
        counts = [k for k in range(parent.kv_heads - 1, 0, -1) if _halving(parent.kv_heads, k)]
    else:
        counts = sorted(set(config.kv_heads), reverse=True)
    for count in counts:
        if count < 1 or parent.kv_heads % count:
            raise UserError(
                f"space.kv_heads: {count} does not divide the parent's {parent.kv_heads} KV "
                f"heads; choose from {_divisors(parent.kv_heads)}"
            )
    return [AttentionOption("gqa", k, parent.window) for k in counts if k < parent.kv_heads]


def _halving(heads: int, count: int) -> bool:
    return heads % count == 0 and ((ratio := heads // count) & (ratio - 1)) == 0


def _divisors(number: int) -> list[int]:
    return [k for k in range(1, number + 1) if number % k == 0]


def _narrower(config: SpaceConfig, parent: FFNOption) -> list[FFNOption]:
    multiple = config.ffn_multiple or width_multiple(parent.width)
    widths = set()
    for fraction in config.ffn_fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"space.ffn_fractions: {fraction} is not in (0, 1]")
        if fraction < 1:
            widths.add(max(multiple, round(fraction * parent.width / multiple) * multiple))
    for width in config.ffn_widths or ():
        if width % multiple or not 0 < width <= parent.width:
            raise UserError(
                f"space.ffn_widths: {width} is not a multiple of {multiple} up to the parent's "
                f"{parent.width}; change it or set space.ffn_multiple"
            )
        widths.add(width)
    return [FFNOption("mlp", w) for w in sorted(widths, reverse=True) if w < parent.width]


def width_multiple(width: int) -> int:
    """The multiple that widths are rounded to by default: the largest of 256, 128, ..., 8 that
    still leaves steps of at most a sixteenth of the parent's width."""
    return next((m for m in _MULTIPLES if m * 16 <= width), _MULTIPLES[-1])
