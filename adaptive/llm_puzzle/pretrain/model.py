"""Build, evaluate, sample and export a parent.

Dimensions: D documents, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive.llm_puzzle.pretrain.settings import ParentShape
from adaptive.llm_puzzle.pretrain.tokenizer import BOS_ID, EOS_ID
from adaptive.llm_puzzle.pretrain.tokens import Documents

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


CAUSAL = "adaptive_causal"
"""Name of ``_causal_attention`` among transformers' attention functions."""


def build_parent(shape: ParentShape, seed: int) -> LlamaForCausalLM:
    """A freshly initialised float32 Llama of the given shape, the same for the same seed."""
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

    AttentionInterface.register(CAUSAL, _causal_attention)
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        attn_implementation=CAUSAL,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
        # Not in the model's own configuration: there it would freeze the embedding of EOS.
        model.generation_config.pad_token_id = EOS_ID
        # Residual outputs start smaller with depth, so that the stream's size does not grow with
        # it (GPT-2; Radford et al. 2019, section 2.3).
        for layer in model.model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * shape.layers))
    return model


def _causal_attention(module, query, key, value, attention_mask, scaling=None, **unused):
    """Causal attention without a mask tensor, for whole windows.

    Under torch.compile transformers' own "sdpa" builds the mask as a tensor, which rules out
    FlashAttention.
    """
    assert attention_mask is None
    gqa = key.shape[1] != query.shape[1]
    out_BHTD = F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=gqa
    )
    return out_BHTD.transpose(1, 2).contiguous(), None


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 on CUDA, full precision elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def window_loss(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the next token over windows int64 [B, T + 1]."""
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT[:, 1:].flatten())


@torch.no_grad()
def evaluate(
    model: nn.Module, documents: Documents, limit: int | None = None, batch: int = 64
) -> dict[str, float]:
    """Loss on validation documents (the first ``limit``), each read from BOS and alone.

    Returns:
        ``loss`` in nats a token, ``bits_per_byte``, and the number of ``tokens`` scored.
    """
    total, count, text_bytes = 0.0, 0, 0
    limit = min(limit or len(documents.ids_DT), len(documents.ids_DT))
    for row in range(0, limit, batch):
        rows = slice(row, min(row + batch, limit))
        ids_DT, scored_DT = documents.ids_DT[rows], documents.scored_DT[rows]
        logits_DTV = model(input_ids=ids_DT, use_cache=False).logits[:, :-1]
        kept = scored_DT[:, 1:]
        nats = F.cross_entropy(logits_DTV[kept].float(), ids_DT[:, 1:][kept], reduction="sum")
        total, count = total + nats.item(), count + int(kept.sum())
        text_bytes += int(documents.bytes_D[rows].sum())
    bits = total / math.log(2) / max(1, text_bytes)
    return {"loss": total / max(1, count), "bits_per_byte": bits, "tokens": count}


def save_parent(model: LlamaForCausalLM, tokens: Path, directory: Path, dtype: str) -> None:
    """Writes a Hugging Face checkpoint with its tokenizer; ``dtype`` is that of the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(directory)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokens / name, directory / name)


def load_parent(directory: Path, device: torch.device | str = "cpu") -> LlamaForCausalLM:
    """The checkpoint in float32, whatever its weights were rounded to."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.to(device).eval()


@torch.no_grad()
def sample_texts(directory: Path, count: int, tokens: int, seed: int = 0) -> list[str]:
    """Texts that the checkpoint writes from BOS alone at temperature 0.8 (CPU, float32)."""
    from transformers import AutoTokenizer

    model, tokenizer = load_parent(directory), AutoTokenizer.from_pretrained(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = model.generate(
            torch.full((count, 1), BOS_ID),
            attention_mask=torch.ones((count, 1), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.8,
            top_k=0,
        )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)
