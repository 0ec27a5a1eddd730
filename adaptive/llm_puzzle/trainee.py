"""Variants in training: one, or several of equal shape as one batched problem.

On a GPU the kernels of a narrow model take less time than their launches. The variants that one
option makes of several layers have the same shape, so their products run as one batched product.

Shapes: G variants, B rows, T tokens, M real tokens of B rows, H hidden size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from adaptive.llm_puzzle.blocks import BlockOption, FFNOption, Option
from adaptive.llm_puzzle.modeling_puzzle import PuzzleLayer
from adaptive.llm_puzzle.walk import LayerActivations, Positions


class Trainee(nn.Module):
    """Blocks of G layers, each with a variant of one half beside the parent's other half, frozen,
    or with variants of both halves.

    Weights of 16 bits are trained as copies of 32, and computed with in 16 (autocast).

    Args:
        option: what the variants are.
        modules: the variants; ``take_over`` writes what was learned into them.
        layers: the parent's layers that they belong to, of equal shapes.
        positions: of the rows.
    """

    def __init__(
        self,
        option: Option,
        modules: Sequence[PuzzleLayer],
        layers: Sequence[PuzzleLayer],
        positions: Positions,
    ):
        super().__init__()
        self.attends = not isinstance(option, FFNOption)
        # Whether the variants have the feed-forward half too, instead of the parent's.
        self.whole = isinstance(option, BlockOption)
        self.size, self.positions = len(modules), positions
        # In lists, so that neither the variants nor the parent become submodules.
        self._modules_out, self._layers = list(modules), list(layers)
        self.dtype = next(modules[0].parameters()).dtype
        self.low = self.dtype == torch.bfloat16
        states = [dict(module.named_parameters()) for module in modules]
        self._names = list(states[0])
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([state[name] for state in states]).float())
            for name in self._names
        )
        if self.size > 1 and self.attends and not self.whole:
            self._feeds = [_Feed(layer) for layer in layers]
            self._partners, _ = stack_module_state(self._feeds)  # type: ignore[arg-type]

    def forward(self, batches: Sequence[LayerActivations]) -> torch.Tensor:
        """Outputs of the blocks at real tokens, [G, M, H].

        Args:
            batches: the same rows of each layer's activations.
        """
        states = [at.x_NTH if self.attends else at.mid_NTH for at in batches]
        tokens_M = batches[0].mask_NT.flatten().nonzero()[:, 0]
        device = states[0].device.type
        with torch.autocast(device, self.dtype) if self.low else contextlib.nullcontext():
            if self.size == 1:
                weights = {name: w.view(w.shape[1:]) for name, w in self._named()}
                return self._one(weights, states[0], tokens_M)[None]
            return self._many(torch.stack(states), tokens_M)

    def _named(self) -> list[tuple[str, torch.Tensor]]:
        return list(zip(self._names, self.weights, strict=True))

    def _one(
        self, weights: dict[str, torch.Tensor], state_BTH: torch.Tensor, tokens_M: torch.Tensor
    ) -> torch.Tensor:
        if not self.attends:
            state_MH = state_BTH.flatten(0, 1).index_select(0, tokens_M)
            return _call(_Feed(self._modules_out[0]), weights, state_MH)
        mid_BTH = _call(_Attend(self._modules_out[0], self.positions), weights, state_BTH)
        mid_MH = mid_BTH.flatten(0, 1).index_select(0, tokens_M)
        if self.whole:
            return _call(_Feed(self._modules_out[0]), weights, mid_MH)
        return self._layers[0].feed(mid_MH)

    def _many(self, states_GBTH: torch.Tensor, tokens_M: torch.Tensor) -> torch.Tensor:
        weights = dict(self._named())
        if not self.attends:
            states_GMH = states_GBTH.flatten(1, 2).index_select(1, tokens_M)
            return _calls(_Feed(self._modules_out[0]), weights, states_GMH)
        mids_GBTH = _calls(_Attend(self._modules_out[0], self.positions), weights, states_GBTH)
        mids_GMH = mids_GBTH.flatten(1, 2).index_select(1, tokens_M)
        if self.whole:
            return _calls(_Feed(self._modules_out[0]), weights, mids_GMH)
        partners = {name.removeprefix("layer."): w for name, w in self._partners.items()}
        return _calls(self._feeds[0], partners, mids_GMH)

    def clip(self, limit: float) -> None:
        """Scales the gradient of each variant alone to a norm of at most ``limit``."""
        grads = [weight.grad for weight in self.weights if weight.grad is not None]
        norms_G = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
        scale_G = (limit / (norms_G + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(scale_G.view(-1, *(1,) * (grad.ndim - 1)))

    @torch.no_grad()
    def take_over(self, which: Sequence[int] | None = None) -> None:
        """Writes the learned weights into the variants, in the variants' own precision."""
        for g in range(self.size) if which is None else which:
            state = {name: weight[g] for name, weight in self._named()}
            self._modules_out[g].load_state_dict(state)


class _Feed(nn.Module):
    """The feed-forward half of a layer as a module's ``forward``."""

    def __init__(self, layer: PuzzleLayer):
        super().__init__()
        self.layer = layer

    def forward(self, x_MH: torch.Tensor) -> torch.Tensor:
        return self.layer.feed(x_MH)


class _Attend(nn.Module):
    """The attention half of a layer as a module's ``forward``."""

    def __init__(self, layer: PuzzleLayer, positions: Positions):
        super().__init__()
        self.layer, self.positions = layer, positions

    def forward(self, x_BTH: torch.Tensor) -> torch.Tensor:
        return self.positions.attend(self.layer, x_BTH)


def _call(module: nn.Module, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A module's output with other weights for its layer."""
    return functional_call(module, {f"layer.{name}": w for name, w in weights.items()}, (x,))


def _calls(module: nn.Module, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Outputs with G sets of weights on G inputs."""

    def one(own: dict[str, torch.Tensor], state: torch.Tensor) -> Any:
        return _call(module, own, state)

    return torch.vmap(one)(weights, x)
