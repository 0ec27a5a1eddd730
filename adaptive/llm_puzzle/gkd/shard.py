"""Weights spread over processes (FSDP2): each holds a part of every layer.

A layer is put together just before it computes and let go after it. Child and parent may lie in
main memory: one layer at a time is copied to the device and cut up there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from adaptive.core.run.ranks import Ranks
from adaptive.llm_puzzle.gkd.loss import Pair
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM


class ShardedWeights:
    """A stand-in for the child, whose single-precision weights are spread over the processes.

    The forward pass sees them rounded to the child's own type; gradients are added up in single
    precision.
    """

    def __init__(self, child: PuzzleForCausalLM, ranks: Ranks):
        self._child, self._ranks = child, ranks
        self._policy = MixedPrecisionPolicy(param_dtype=child.dtype, reduce_dtype=torch.float32)
        self.model = _copied(child, ranks, torch.float32, self._policy)
        self.model.train().requires_grad_(True)

    def wrap(self, pair: Pair) -> nn.Module:
        """Shards what is in no layer: embedding, final norm and head of the child.

        Those of the parent stay whole in every process: they compute outside of any layer.
        """
        whole = {weight for weight in pair.parent.parameters() if not isinstance(weight, DTensor)}
        fully_shard(pair, mesh=_mesh(self._ranks), mp_policy=self._policy, ignored_params=whole)
        return pair

    def named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.model.named_parameters()

    def publish(self) -> None:
        """Nothing to do: the next forward pass gathers the new weights."""

    @torch.no_grad()
    def finish(self) -> None:
        own = dict(self._child.named_parameters())
        for name, weight in self.named():
            assert isinstance(weight, DTensor)
            own[name].copy_(weight.full_tensor())
        self._child.eval().requires_grad_(False)


def shard_frozen(model: PuzzleForCausalLM, ranks: Ranks) -> PuzzleForCausalLM:
    """A copy of a model that is not trained, its layers spread over the processes."""
    return _copied(model, ranks, model.dtype, MixedPrecisionPolicy()).eval().requires_grad_(False)


def _copied(
    model: PuzzleForCausalLM, ranks: Ranks, dtype: torch.dtype, policy: MixedPrecisionPolicy
) -> PuzzleForCausalLM:
    """A copy on this process's device with sharded layers."""
    with torch.device("meta"):
        twin = PuzzleForCausalLM(model.config)
    inner = model.model
    # Copied together, so that a head that is the embedding stays so; frequencies keep their type.
    ends = copy.deepcopy((inner.embed_tokens, inner.norm, model.lm_head))
    twin.model.embed_tokens, twin.model.norm, twin.lm_head = (
        end.to(device=ranks.device, dtype=dtype) for end in ends
    )
    twin.model.rotary_emb = copy.deepcopy(inner.rotary_emb).to(ranks.device)
    for i, layer in enumerate(inner.layers):
        own = copy.deepcopy(layer).to(device=ranks.device, dtype=dtype)
        if any(True for _ in own.parameters()):
            fully_shard(own, mesh=_mesh(ranks), mp_policy=policy)
        twin.model.layers[i] = own
    return twin


def _mesh(ranks: Ranks) -> DeviceMesh:
    return init_device_mesh(torch.device(ranks.device).type, (ranks.world,))
