"""The weights that the optimiser changes: always in single precision.

With a learning rate of 1e-4 most updates of a bfloat16 weight are below half of its last digit and
would vanish. So a bfloat16 child keeps a copy of every weight in single precision; the forward pass
sees it rounded, exactly as the child will be shipped (autocast would leave the residual stream in
single precision, which no server does), and FSDP does the same to its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import nn

from adaptive.llm_puzzle.gkd.loss import Pair
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM


class Weights(Protocol):
    """What training does with the weights of a child."""

    model: PuzzleForCausalLM  # computes: the child itself, or what stands for it

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser changes, by the child's names."""
        ...

    def wrap(self, pair: Pair) -> nn.Module:
        """What to call for the loss."""
        ...

    def publish(self) -> None:
        """After a change: makes the model compute with it."""
        ...

    def finish(self) -> None:
        """At the end: the child has the trained weights, is frozen and in evaluation mode."""
        ...


class LocalWeights:
    """All weights in this process."""

    def __init__(self, child: PuzzleForCausalLM):
        self.model = child.train().requires_grad_(True)
        self._masters = {
            name: weight
            if weight.dtype == torch.float32
            else nn.Parameter(weight.detach().to(torch.float32, copy=True))
            for name, weight in child.named_parameters()
        }
        self._copies = [
            (weight, self._masters[name])
            for name, weight in child.named_parameters()
            if weight is not self._masters[name]
        ]
        # Gradients are handed over as they come, so those of several micro-batches add up in
        # single precision too.
        self._hooks = [
            weight.register_post_accumulate_grad_hook(_hand_over(master))
            for weight, master in self._copies
        ]

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._masters.items()

    def wrap(self, pair: Pair) -> nn.Module:
        return pair

    @torch.no_grad()
    def publish(self) -> None:
        if self._copies:
            weights, masters = zip(*self._copies, strict=True)
            torch._foreach_copy_(weights, masters)  # one kernel for many small weights

    def finish(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for weight in self.model.parameters():
            weight.grad = None
        self.model.eval().requires_grad_(False)


def _hand_over(master: nn.Parameter) -> Callable[[torch.Tensor], None]:
    def hook(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        if master.grad is None:
            master.grad = weight.grad.to(torch.float32)
        else:
            master.grad += weight.grad
        weight.grad = None

    return hook
