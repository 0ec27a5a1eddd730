"""Cost models: from a block and a workload to an amount of each resource.

A workload runs ``batch`` sequences: one prefill of ``prompt`` tokens, which yields the first new
token, then ``output - 1`` decode steps over a growing context. ``output=0`` is prefill alone: an
encoder, a detector, or scoring of text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from adaptive.core.cost.block import Block, activation_dtype
from adaptive.core.workload import Workload


@runtime_checkable
class CostModel(Protocol):
    """Prices blocks one by one; the price of a model is the sum over its parts.

    Attributes:
        resources: names of the resources that ``cost`` returns.
        is_bound: the numbers are lower bounds, not predictions; say so wherever they are shown.
    """

    @property
    def resources(self) -> tuple[str, ...]: ...
    @property
    def is_bound(self) -> bool: ...

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        """Cost of ``block`` over ``workload`` with weights in ``dtype``, by resource."""
        ...


def decode_contexts(workload: Workload) -> tuple[int, int, int]:
    """(steps, first, last): number of decode steps, cached tokens before the first and last."""
    steps = max(workload.output - 1, 0)
    return steps, workload.prompt, workload.prompt + max(steps - 1, 0)


def affine_parts(block: Block, workload: Workload) -> Iterator[tuple[int, int]]:
    """(first, last) context of each run of decode steps over which the counts are affine."""
    steps, first, last = decode_contexts(workload)
    if steps:
        for kink in (*block.kinks(), last):
            if first <= kink:
                yield first, min(kink, last)
                first = kink + 1
            if first > last:
                return


def model_cost(block: Block, workload: Workload, dtype: str, model: CostModel) -> dict[str, float]:
    """Cost of a whole stack: the sum of its parts, each distinct part priced once.

    A part behind a patch embedding or a strided convolution reads what they leave of the prompt.
    """
    total = dict.fromkeys(model.resources, 0.0)
    for (part, prompt), count in Counter(block.parts_at(workload.prompt)).items():
        work = replace(workload, prompt=prompt)
        for resource, value in model.cost(part, work, dtype).items():
            total[resource] += count * value
    return total


@dataclass(frozen=True)
class Analytic:
    """Counts that follow from shapes alone, exact under the conventions of ``cost.block``.

    ``params``; ``flops`` of the whole workload; ``memory``: weights plus the KV cache at the
    workload's full length, in bytes. Activations are a peak, not a sum: see
    ``Block.activation_bytes``.

    Attributes:
        kv_dtype: dtype of the KV cache; None is that of the activations (bf16 beside fp8, int8
            and int4 weights).
    """

    kv_dtype: str | None = None
    resources: tuple[str, ...] = ("params", "flops", "memory")
    is_bound: bool = False

    def cost(self, block: Block, workload: Workload, dtype: str) -> dict[str, float]:
        flops = float(block.prefill_flops(workload.batch, workload.prompt))
        for first, last in affine_parts(block, workload):
            # The mean of the ends is the mean of all.
            ends = sum(block.decode_flops(workload.batch, context) for context in (first, last))
            flops += (last - first + 1) * ends / 2
        kv_dtype = self.kv_dtype or activation_dtype(dtype)
        cache = block.cache_bytes(workload.batch, workload.seq_len, kv_dtype)
        return {
            "params": float(block.params()),
            "flops": flops,
            "memory": block.weight_bytes(dtype) + cache,
        }
