"""A child as a GGUF file of architecture ``deci``, which llama.cpp loads.

What llama.cpp takes the numbers of a layer for (its converter's and its loader's convention):

=========== =============== ====================================================
head_count  head_count_kv   attention
=========== =============== ====================================================
n           k               grouped-query attention, tensors attn_q, _k, _v, _output
n           0               linear: attn_output alone is applied to the normed input
0           0               none, not even a norm
=========== =============== ====================================================

and feed_forward_length 0 for no FFN and no norm of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from einops import rearrange

from adaptive.core.errors import UserError
from adaptive.core.run import atomic_path
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.export.engines import Engine
from adaptive.llm_puzzle.export.formats import EXPORTS
from adaptive.llm_puzzle.export.gguf_tokenizer import Vocabulary, read_vocabulary
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.parent import parent_config
from adaptive.llm_puzzle.weights import Checkpoint

FILE_TYPES = {torch.float32: "ALL_F32", torch.float16: "MOSTLY_F16", torch.bfloat16: "MOSTLY_BF16"}


def prepare(parent: Path) -> None:
    """Raises UserError where no child of a parent can be written; see :meth:`Format.prepare`."""
    _package()
    config = parent_config(parent)
    rope_scaling(config)
    read_vocabulary(parent, config.vocab_size)


def write(source: Path, target: Path, engine: Engine | None = None) -> None:
    """Writes a child as one GGUF file, a tensor at a time; see :meth:`Format.write`.

    Matrices keep the child's type; vectors are single precision, as llama.cpp wants norms, which
    loses nothing.
    """
    gguf = _package()
    config, weights = parent_config(source), Checkpoint.of(source)
    EXPORTS["gguf"].check(config)
    blocks = [BlockOption.from_config(entry) for entry in config.blocks]
    words = read_vocabulary(source, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DECI, len(blocks))
    with atomic_path(target) as temporary:
        writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.DECI])
        _describe(gguf, writer, config, blocks)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[weights.dtype]])
        _add_vocabulary(writer, words)
        extra = rope_factors(config)
        if extra is not None:
            _announce(gguf, writer, "rope_freqs.weight", extra.shape, torch.float32)
        for name, entry in weights.entries.items():
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert theirs is not None, name  # what has no name there was refused above
            _announce(gguf, writer, theirs, entry.shape, entry.dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if extra is not None:
            writer.write_tensor_data(extra)
        for name in weights.entries:
            writer.write_tensor_data(_array(interleaved(name, weights[name], config.head_dim)))
        writer.close()


def interleaved(name: str, weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """A weight with the rows of queries and keys in the order of llama.cpp's rotation.

    Llama's rotates row i of a head with row i + D/2, llama.cpp's row 2i with row 2i + 1.
    """
    if ".q_proj." not in name and ".k_proj." not in name:
        return weight
    return rearrange(weight, "(n two d) ... -> (n d two) ...", two=2, d=head_dim // 2).contiguous()


def rope_scaling(config: PuzzleModelConfig) -> tuple[str, float] | None:
    """The kind and factor of rotary scaling that the header gives; ``None`` for none.

    Llama 3's is no kind of its own: its factors are a tensor.

    Raises:
        UserError: a kind that is neither Llama 3's nor linear.
    """
    rope = config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        return "linear", float(rope["factor"])
    if kind not in ("default", "llama3"):
        raise UserError(
            f"gguf: rotary scaling of kind {kind} is not supported; leave gguf out of `export`"
        )
    return None


def rope_factors(config: PuzzleModelConfig) -> np.ndarray | None:
    """What Llama 3 divides each rotary frequency by, [D/2]; ``None`` for other kinds of scaling.

    Wave lengths beyond ``original_max_position_embeddings / low_freq_factor`` are stretched by
    ``factor``, those below ``.../ high_freq_factor`` are kept, and what lies between is blended.
    """
    rope = config.rope_parameters or {}
    if rope.get("rope_type") != "llama3":
        return None
    half = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    waves_D = 2 * math.pi * rope["rope_theta"] ** half
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share_D = (rope["original_max_position_embeddings"] / waves_D - low) / (high - low)
    share_D = share_D.clip(0, 1)
    return (1 / ((1 - share_D) / rope["factor"] + share_D)).astype(np.float32)


def _describe(
    gguf: ModuleType, writer: Any, config: PuzzleModelConfig, blocks: list[BlockOption]
) -> None:
    heads = config.num_attention_heads
    writer.add_block_count(len(blocks))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count([0 if b.attention.kind == "no_op" else heads for b in blocks])
    writer.add_head_count_kv([b.attention.kv_heads for b in blocks])
    writer.add_feed_forward_length([b.ffn.width for b in blocks])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base((config.rope_parameters or {}).get("rope_theta", 10000.0))
    writer.add_vocab_size(config.vocab_size)
    scaling = rope_scaling(config)
    if scaling is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling[0]))
        writer.add_rope_scaling_factor(scaling[1])


def _add_vocabulary(writer: Any, words: Vocabulary | None) -> None:
    if words is None:  # llama.cpp then takes token ids alone
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.scores:
        writer.add_token_scores(words.scores)
    if words.merges:
        writer.add_token_merges(words.merges)
    for name, number in words.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(words.add_bos)
    writer.add_add_eos_token(words.add_eos)
    writer.add_add_space_prefix(words.add_space)
    if words.template is not None:
        writer.add_chat_template(words.template)


def _announce(
    gguf: ModuleType, writer: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Puts a tensor into the table of contents, in the type that :func:`_array` gives it."""
    if len(shape) == 1:
        dtype = torch.float32
    kinds = gguf.GGMLQuantizationType
    kind = {torch.float32: kinds.F32, torch.float16: kinds.F16, torch.bfloat16: kinds.BF16}[dtype]
    nbytes = math.prod(shape) * dtype.itemsize
    # The type of NumPy's array is not asked for where the kind is given.
    writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes, raw_dtype=kind)


def _array(weight: torch.Tensor) -> np.ndarray:
    """A weight's bytes for the file; NumPy has no bfloat16."""
    if weight.ndim == 1:
        weight = weight.float()
    if weight.dtype == torch.bfloat16:
        weight = weight.view(torch.int16)
    return weight.numpy()


def _package() -> ModuleType:
    try:
        import gguf
    except ImportError:
        raise UserError(
            "export=gguf needs the package gguf: pip install 'adaptive-compute[gguf]'"
        ) from None
    return gguf
