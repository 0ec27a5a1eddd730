"""Starting weights of block variants, taken from the parent (Puzzle, section 3 and appendix).

``paper``: FFN channels are kept by ``C_i = mean |h_i| * ||W_down[:, i]||``; the key and value
projections of a group of KV heads are averaged; linear attention is ``W_O W_V`` (each token
attends to itself) and a linear FFN is ``W_down W_up`` (the gate left out).

``ridge``: the same choice of channels and heads, but the last matrix of the sub-block is the
closed-form optimum of the sub-block's output error on the calibration tokens,
``argmin_W ||F W - Y||^2 + lambda ||W||^2`` with F what enters that matrix and Y the parent's
output. Every width shares one Gram matrix, since a narrower FFN's features are columns of the
parent's.

Shapes: M tokens, H hidden size, I FFN width, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn

from adaptive.core.blockwise.moments import Moments, contribution, most
from adaptive.llm_puzzle.blocks import AttentionOption, FFNOption
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM, PuzzleLayer
from adaptive.llm_puzzle.walk import LayerActivations, Positions, build


class LayerInitialiser:
    """Makes initial variants of one layer; what several variants need is computed once.

    Args:
        model: the parent.
        activations: of the layer, on the calibration rows.
        batch: rows at once.
        ridge: see :meth:`Moments.solve`.
    """

    def __init__(
        self,
        model: PuzzleForCausalLM,
        activations: LayerActivations,
        batch: int,
        ridge: float,
    ):
        self.model = model
        self.at = activations
        self.batch = batch
        self.ridge = ridge
        self.positions = Positions.of(model, activations.x_NTH)

    @torch.no_grad()
    def __call__(self, option: AttentionOption | FFNOption, how: str) -> PuzzleLayer:
        """The variant with initial weights.

        Args:
            option: not a no-op.
            how: ``"paper"`` or ``"ridge"``.
        """
        variant = build(self.model, option)
        if isinstance(option, AttentionOption):
            variant.input_layernorm.load_state_dict(self.at.layer.input_layernorm.state_dict())
            make = self._linear_attention if option.kind == "linear" else self._fewer_kv_heads
        else:
            norm = self.at.layer.post_attention_layernorm
            variant.post_attention_layernorm.load_state_dict(norm.state_dict())
            make = self._linear_ffn if option.kind == "linear" else self._narrower_ffn
        make(variant, how)
        return variant

    # --- feed-forward ---

    @cached_property
    def _channel_moments(self) -> Moments:
        """Of the parent's hidden channels against its output, [I, I] and [I, H]."""
        mlp = self.at.layer.mlp

        def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for at in self.at.batches(self.batch):
                mid_MH = at.mid_NTH[at.mask_NT]
                h_MI = mlp.channels(at.layer.post_attention_layernorm(mid_MH))
                yield h_MI, nn.functional.linear(h_MI, mlp.down_proj.weight)

        return Moments.of(pairs())

    @cached_property
    def _ffn_input_moments(self) -> Moments:
        def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for at in self.at.batches(self.batch):
                n_MH = at.layer.post_attention_layernorm(at.mid_NTH[at.mask_NT])
                yield n_MH, at.layer.mlp(n_MH)

        return Moments.of(pairs())

    def channel_contribution(self) -> torch.Tensor:
        """``C_i`` of every FFN channel, [I]."""
        weight_HI = self.at.layer.mlp.down_proj.weight
        return contribution(self._channel_moments.mean_abs_F, weight_HI)

    def _narrower_ffn(self, variant: PuzzleLayer, how: str) -> None:
        mlp, parent = variant.mlp, self.at.layer.mlp
        width = mlp.up_proj.out_features
        keep = most(self.channel_contribution(), width)
        for name in ("gate_proj", "up_proj"):
            theirs, ours = getattr(parent, name), getattr(mlp, name)
            ours.weight.copy_(theirs.weight[keep])
            if ours.bias is not None:
                ours.bias.copy_(theirs.bias[keep])
        if how == "ridge":
            mlp.down_proj.weight.copy_(self._channel_moments.solve(self.ridge, keep))
        else:
            mlp.down_proj.weight.copy_(parent.down_proj.weight[:, keep])
        if mlp.down_proj.bias is not None:
            mlp.down_proj.bias.copy_(parent.down_proj.bias)

    def _linear_ffn(self, variant: PuzzleLayer, how: str) -> None:
        parent = self.at.layer.mlp
        if how == "ridge":
            weight = self._ffn_input_moments.solve(self.ridge)
        else:
            weight = parent.down_proj.weight @ parent.up_proj.weight
        variant.mlp.linear_mlp.weight.copy_(weight)

    # --- attention ---

    @cached_property
    def _attention_input_moments(self) -> Moments:
        def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for at in self.at.batches(self.batch):
                yield at.layer.input_layernorm(at.x_NTH[at.mask_NT]), _attention_output(at)

        return Moments.of(pairs())

    def _linear_attention(self, variant: PuzzleLayer, how: str) -> None:
        parent = self.at.layer.self_attn
        if how == "ridge":
            weight = self._attention_input_moments.solve(self.ridge)
        else:
            value_KDH = parent.v_proj.weight.unflatten(0, (-1, parent.head_dim))
            value_NDH = value_KDH.repeat_interleave(parent.num_key_value_groups, dim=0)
            weight = parent.o_proj.weight @ value_NDH.flatten(0, 1)
        variant.self_attn.linear_attn.weight.copy_(weight)

    def _fewer_kv_heads(self, variant: PuzzleLayer, how: str) -> None:
        attention, parent = variant.self_attn, self.at.layer.self_attn
        attention.load_state_dict(
            {
                name: mean_pool_heads(weight, ours.shape[0], parent.head_dim)
                if name.startswith(("k_proj", "v_proj"))
                else weight
                for (name, weight), ours in zip(
                    parent.state_dict().items(), attention.state_dict().values(), strict=True
                )
            }
        )
        if how == "ridge":
            moments = Moments.of(self._pooled_pairs(variant))
            attention.o_proj.weight.copy_(moments.solve(self.ridge))

    def _pooled_pairs(self, variant: PuzzleLayer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        bias = variant.self_attn.o_proj.bias
        for at in self.at.batches(self.batch):
            heads_BTF = self.positions.heads(variant, at.x_NTH)
            y_MH = _attention_output(at)
            yield heads_BTF[at.mask_NT], y_MH if bias is None else y_MH - bias


def _attention_output(at: LayerActivations) -> torch.Tensor:
    """What the parent's attention adds to the residual stream."""
    return (at.mid_NTH - at.x_NTH)[at.mask_NT]


def mean_pool_heads(weight: torch.Tensor, rows: int, head_dim: int) -> torch.Tensor:
    """Averages the heads of each group of a key or value projection (weight or bias).

    Args:
        weight: [heads * head_dim, ...].
        rows: of the result, a multiple of ``head_dim`` that divides those of ``weight``.
        head_dim: D.
    """
    grouped = weight.unflatten(0, (rows // head_dim, -1, head_dim))
    return grouped.mean(dim=1).flatten(0, 1)
