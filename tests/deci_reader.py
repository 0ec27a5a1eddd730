"""llama.cpp's reading of a ``deci`` file, step for step, in PyTorch: the other side of the export.

Knows nothing of this library: tensors by llama.cpp's names, layers by the header's numbers, and
rotation of neighbouring rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch


class Deci:
    """An opened file."""

    def __init__(self, path: Path):
        reader = gguf.GGUFReader(path)
        self.fields: dict[str, Any] = {n: f.contents() for n, f in reader.fields.items()}
        self.kinds = {t.name: t.tensor_type.name for t in reader.tensors}
        self.tensors = {t.name: self._tensor(t) for t in reader.tensors}

    @staticmethod
    def _tensor(entry: gguf.ReaderTensor) -> torch.Tensor:
        data = torch.from_numpy(entry.data.copy())
        if entry.tensor_type == gguf.GGMLQuantizationType.BF16:  # which NumPy sees as bytes
            data = data.view(torch.bfloat16)
        assert list(data.shape) == list(reversed(entry.shape.tolist()))
        return data

    def number(self, name: str) -> Any:
        return self.fields[f"deci.{name}"]

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.tensors[f"{name}.weight"].float().T
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else y + bias

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        scale = x.square().mean(-1, keepdim=True) + self.number("attention.layer_norm_rms_epsilon")
        return x * scale.rsqrt() * self.tensors[f"{name}.weight"]

    def _rotated(self, x_TND: torch.Tensor) -> torch.Tensor:
        D = self.number("rope.dimension_count")
        frequency = self.number("rope.freq_base") ** -(torch.arange(0, D, 2) / D)
        if "rope_freqs.weight" in self.tensors:
            frequency = frequency / self.tensors["rope_freqs.weight"]
        if self.fields.get("deci.rope.scaling.type") == "linear":
            frequency = frequency / self.number("rope.scaling.factor")
        angle = (torch.arange(len(x_TND))[:, None] * frequency)[:, None]
        even, odd = x_TND[..., 0::2], x_TND[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
        return torch.stack(turned, -1).flatten(-2)

    def _attention(self, i: int, x: torch.Tensor, heads: int, kv_heads: int) -> torch.Tensor:
        T, D = len(x), self.number("attention.key_length")
        q = self._rotated(self._linear(f"blk.{i}.attn_q", x).view(T, heads, D))
        k = self._rotated(self._linear(f"blk.{i}.attn_k", x).view(T, kv_heads, D))
        v = self._linear(f"blk.{i}.attn_v", x).view(T, kv_heads, D)
        k, v = (y.repeat_interleave(heads // kv_heads, 1) for y in (k, v))
        score = torch.einsum("tnd,snd->nts", q, k) / D**0.5
        score = score.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)
        out = torch.einsum("nts,snd->tnd", score, v).reshape(T, heads * D)
        return self._linear(f"blk.{i}.attn_output", out)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [T, V] of a sequence of token ids [T]."""
        x = self.tensors["token_embd.weight"].float()[ids]
        heads, kv_heads = (
            self.number("attention.head_count"),
            self.number("attention.head_count_kv"),
        )
        for i, width in enumerate(self.number("feed_forward_length")):
            if heads[i]:
                y = self._norm(f"blk.{i}.attn_norm", x)
                if kv_heads[i]:
                    x = x + self._attention(i, y, heads[i], kv_heads[i])
                else:
                    x = x + self._linear(f"blk.{i}.attn_output", y)
            if width:
                y = self._norm(f"blk.{i}.ffn_norm", x)
                gate = torch.nn.functional.silu(self._linear(f"blk.{i}.ffn_gate", y))
                x = x + self._linear(f"blk.{i}.ffn_down", gate * self._linear(f"blk.{i}.ffn_up", y))
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return self._linear(head, self._norm("output_norm", x))
