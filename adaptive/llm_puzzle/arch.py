"""Published children by name, or from their ``config.json``: what ``arch`` chooses."""

from __future__ import annotations

import json
from pathlib import Path

from adaptive.core.cost import Analytic, CostModel, decoder_shape, model_cost
from adaptive.core.errors import UserError
from adaptive.core.registry import Registry
from adaptive.core.workload import Workload
from adaptive.llm_puzzle.blocks import AttentionOption, BlockOption, FFNOption
from adaptive.llm_puzzle.export.deci_config import MODEL_TYPE, from_deci
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.shapes import stack

ARCHITECTURES: Registry[str] = Registry("architecture")
"""Names that ``arch`` takes to names in ``core.cost.MODELS``."""

ARCHITECTURES.register("super_49b")("nemotron-super-49b")
ARCHITECTURES.register("ultra_253b")("nemotron-ultra-253b")


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
        return from_deci(content, f"arch={arch}")
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
