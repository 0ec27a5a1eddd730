"""Published children by name, or from their ``config.json``: what ``arch`` chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive.core.cost import Analytic, CostModel, decoder_shape, model_cost
from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.core.workload import Workload
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.shapes import stack

ARCHITECTURES: Registry[str] = Registry("architecture")
"""Names that ``arch`` takes to names in ``core.cost.MODELS``."""

ARCHITECTURES.register("super_49b")("nemotron-super-49b")
ARCHITECTURES.register("ultra_253b")("nemotron-ultra-253b")

MODEL_TYPE = "nemotron-nas"
MULTIPLE = 256  # that these models' FFN widths are rounded up to, where given as a multiple


def architecture(arch: str) -> PuzzleModelConfig:
    """The shape of a published child.

    Args:
        arch: a name in ``ARCHITECTURES``, or a ``config.json`` of model_type nemotron-nas (or the
            directory that holds it).

    Raises:
        UserError: there is neither, or the file is not such a configuration.
    """
    if arch in ARCHITECTURES:
        return _from_name(ARCHITECTURES[arch])
    path = architecture_file(arch)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"arch={arch} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("model_type") != MODEL_TYPE:
        kind = content.get("model_type") if isinstance(content, dict) else None
        raise UserError(
            f"arch={arch} has model_type {kind!r}: give a config.json of model_type {MODEL_TYPE!r}"
        )
    try:
        return _Reader(arch, content).config()
    except UserError:
        raise
    except ValueError as error:  # the model's own checks
        raise UserError(f"arch={arch}: {error}") from None


def architecture_file(arch: str) -> Path:
    """The file that ``arch`` names.

    Raises:
        UserError: it names neither a file nor a known architecture.
    """
    path = Path(arch).expanduser()
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"arch={arch} names no config.json, and {ARCHITECTURES.unknown(path.name)}")
    return path


def price(
    config: PuzzleModelConfig, workload: Workload, dtype: str, latency: CostModel
) -> dict[str, float]:
    """Parameters, memory (weights and KV cache), FLOPs and latency of a whole model.

    Args:
        config: the model.
        workload: batch and lengths.
        dtype: of the weights, in the names of ``core.cost``.
        latency: prices the latency.
    """
    whole = stack(config)
    counts = model_cost(whole, workload, dtype, Analytic())
    return {**counts, **model_cost(whole, workload, dtype, latency)}


def _from_name(name: str) -> PuzzleModelConfig:
    shape = decoder_shape(name)
    return PuzzleModelConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        blocks=[
            _block(kv, width).to_config()
            for kv, width in zip(shape.kv_heads, shape.intermediate, strict=True)
        ],
    )


def _block(kv_heads: int, width: int) -> BlockOption:
    """The layer with so many KV heads and such a width, 0 for none."""
    return BlockOption(
        AttentionOption("gqa", kv_heads) if kv_heads else AttentionOption("no_op"),
        FFNOption("mlp", width) if width else FFNOption("no_op"),
    )


@dataclass(frozen=True)
class _Reader:
    """A nemotron-nas configuration and the setting under which messages speak of it.

    Each layer has an entry of ``block_configs``. KV heads are ``num_attention_heads //
    n_heads_in_group``; the FFN has an ``intermediate_size`` of its own, or an ``ffn_mult`` with
    which it is two thirds of ``ffn_mult`` hidden sizes, rounded up to a multiple of 256.
    """

    arch: str
    content: Mapping[str, Any]

    def config(self) -> PuzzleModelConfig:
        entries = self.content.get("block_configs")
        if not isinstance(entries, list) or not entries:
            raise self.wrong("block_configs is missing", "a list with an entry for each layer")
        layers = self.content.get("num_hidden_layers", len(entries))
        if layers != len(entries):
            raise self.wrong(
                f"block_configs has {len(entries)} entries and num_hidden_layers is {layers}",
                "as many of one as of the other",
            )
        heads, hidden = self.number("num_attention_heads"), self.number("hidden_size")
        return PuzzleModelConfig(
            vocab_size=self.number("vocab_size"),
            hidden_size=hidden,
            num_attention_heads=heads,
            head_dim=self.number("head_dim") if self.content.get("head_dim") else None,
            qkv_bias=bool(self.content.get("attention_bias")),
            o_bias=bool(self.content.get("attention_bias")),
            mlp_bias=bool(self.content.get("mlp_bias")),
            tie_word_embeddings=bool(self.content.get("tie_word_embeddings")),
            blocks=[
                BlockOption(self.attention(i, entry, heads), self.ffn(i, entry, hidden)).to_config()
                for i, entry in enumerate(entries)
            ],
        )

    def attention(self, layer: int, entry: Any, heads: int) -> AttentionOption:
        half = self.half(layer, entry, "attention")
        if half.get("no_op"):
            return AttentionOption("no_op")
        if half.get("replace_with_linear"):
            return AttentionOption("linear")
        group = half.get("n_heads_in_group")
        if not isinstance(group, int) or group < 1 or heads % group:
            raise self.wrong(
                f"layer {layer}: n_heads_in_group is {group}", f"a divisor of the {heads} heads"
            )
        return AttentionOption("gqa", heads // group, half.get("window_length") or None)

    def ffn(self, layer: int, entry: Any, hidden: int) -> FFNOption:
        half = self.half(layer, entry, "ffn")
        if half.get("no_op"):
            return FFNOption("no_op")
        if half.get("replace_with_linear"):
            return FFNOption("linear")
        width, multiple = half.get("intermediate_size"), half.get("ffn_mult")
        if width is None and isinstance(multiple, (int, float)):
            width = -(-int(2 * multiple * hidden / 3) // MULTIPLE) * MULTIPLE
        if not isinstance(width, int) or width < 1:
            raise self.wrong(
                f"layer {layer}: the FFN has no width", "ffn_mult or intermediate_size above 0"
            )
        return FFNOption("mlp", width)

    def half(self, layer: int, entry: Any, name: str) -> Mapping[str, Any]:
        half = entry.get(name) if isinstance(entry, Mapping) else None
        if not isinstance(half, Mapping):
            raise self.wrong(f"layer {layer}: {name} is missing", "an entry for both halves")
        return half

    def number(self, field: str) -> int:
        value = self.content.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(f"{field} is {value!r}", "a whole number >= 1")
        return value

    def wrong(self, what: str, wanted: str) -> UserError:
        return UserError(f"arch={self.arch}: {what}, give it {wanted}")
