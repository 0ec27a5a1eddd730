"""Multiply-accumulates of a call, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def counted_macs(call: Callable[[], Any]) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention of a call.

    Half of what ``torch.utils.flop_counter`` counts, attention on a CPU included, which torch
    before 2.15 leaves out. Elementwise work, norms, resizing and sorting are not counted.

    Args:
        call: runs the thing once, on the CPU or on a GPU; no gradients are kept.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={on_cpu: attention})
    with counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2
