"""Build, evaluate, sample and export a parent.

Dimensions: D documents, T tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive.llm_puzzle.pretrain.settings import ParentShape
from adaptive.llm_puzzle.pretrain.tokenizer import BOS_ID, EOS_ID
from adaptive.llm_puzzle.pretrain.tokens import Documents

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


EVALUATION_BATCH = 64

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
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float()
        model.set_attn_implementation(CAUSAL)
        # Not in the model's own configuration: there it would freeze the embedding of EOS.
        model.generation_config.pad_token_id = EOS_ID
        # Residual outputs start smaller with depth, so that the stream's size does not grow with
        # it (GPT-2; Radford et al. 2019, section 2.3).
        for layer in model.model.layers:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * shape.layers))
    return model


def add_dropout(model: LlamaForCausalLM, rate: float) -> None:
    """Drops entries of what attention and FFN add to the residual stream, in training mode only.

    transformers' Llama has no such dropout, so hooks add it; a checkpoint is none the wiser.
    """

    def drop(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return F.dropout(output, rate, module.training)

    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.down_proj.register_forward_hook(drop)


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
    model: nn.Module,
    documents: Documents,
    limit: int | None = None,
    show: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> dict[str, float]:
    """Loss on validation documents (the first ``limit``), each read from BOS and alone.

    Args:
        model: in evaluation mode.
        documents: padded on the right; causal attention never sees the padding.
        limit: how many; None reads all.
        show: wraps the batches to show progress.

    Returns:
        ``loss`` in nats a token, ``bits_per_byte``, and the number of ``tokens`` scored.
    """
    scored_D = documents.scored_DT[:limit].sum(1)
    total, count = 0.0, 0
    # Documents of like length together: little padding.
    for rows in show(scored_D.argsort(stable=True).split(EVALUATION_BATCH)):
        length = int(scored_D[rows].max()) + 1
        ids_DT, kept = documents.ids_DT[rows, :length], documents.scored_DT[rows, 1:length]
        logits_DTV = model(input_ids=ids_DT, use_cache=False).logits[:, :-1]
        nats = F.cross_entropy(logits_DTV[kept].float(), ids_DT[:, 1:][kept], reduction="sum")
        total, count = total + nats.item(), count + int(kept.sum())
    bits = total / math.log(2) / max(1, int(documents.bytes_D[:limit].sum()))
    return {"loss": total / max(1, count), "bits_per_byte": bits, "tokens": count}


def save_parent(model: LlamaForCausalLM, tokens: Path, directory: Path, dtype: str) -> None:
    """Writes a Hugging Face checkpoint with its tokenizer; ``dtype`` is that of the weights."""
    from adaptive.llm_puzzle.checkpoint import no_progress_bar

    directory.mkdir(parents=True, exist_ok=True)
    with no_progress_bar():
        copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(directory)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokens / name, directory / name)


def load_parent(directory: Path, device: torch.device | str = "cpu") -> LlamaForCausalLM:
    """The checkpoint in float32, whatever its weights were rounded to."""
    from transformers import LlamaForCausalLM

    from adaptive.llm_puzzle.checkpoint import no_progress_bar

    with no_progress_bar():
        model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    nn.Module.to(model, device)  # in place; transformers' own has no types
    return model.eval()


@torch.no_grad()
def sample_texts(directory: Path, count: int, tokens: int, seed: int = 0) -> list[str]:
    """Texts that the checkpoint writes from BOS alone at temperature 0.8 (CPU, float32)."""
    from transformers import PreTrainedTokenizerFast

    model, tokenizer = load_parent(directory), PreTrainedTokenizerFast.from_pretrained(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generate: Any = model.generate  # typed as one of five kinds of output
        ids = generate(
            torch.full((count, 1), BOS_ID),
            attention_mask=torch.ones((count, 1), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=True,
            temperature=0.8,
            top_k=0,
        )
    return tokenizer.batch_decode(ids, skip_special_tokens=True)
