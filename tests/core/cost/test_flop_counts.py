"""FLOPs, parameters and activation peaks against what torch counts on real modules."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)
from torch.utils.flop_counter import FlopCounterMode

from adaptive.core.cost import FFN, Attention, Conv2d, Linear, NoOp, Stack, VitBlock, decoder
from adaptive.core.engine import Rope, Step, build, ops

HIDDEN, HEADS, KV, DIM, WIDTH, VOCAB, LAYERS = 64, 8, 2, 16, 160, 500, 3


def count(call) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        call()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def shape() -> Stack:
    layers = [(Attention(HIDDEN, HEADS, KV, DIM), FFN(HIDDEN, WIDTH))] * LAYERS
    return decoder(HIDDEN, VOCAB, layers, every_position=True)


def llama(device: str, kv_heads: int = KV):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        head_dim=DIM,
        tie_word_embeddings=False,
    )
    with torch.device(device):
        return LlamaForCausalLM(config).eval()


def prefill(model, batch: int, length: int):
    ids = torch.zeros(batch, length, dtype=torch.long, device=model.device)
    return model(input_ids=ids, use_cache=True).past_key_values


def test_llama_on_meta(shape):
    model = llama("meta")
    assert sum(p.numel() for p in model.parameters()) == shape.params()
    assert count(lambda: prefill(model, 2, 40)) == shape.prefill_flops(2, 40)


def test_llama_decode_on_meta(shape):
    model = llama("meta")
    with torch.no_grad():
        cache = prefill(model, 2, 40)
    token = torch.zeros(2, 1, dtype=torch.long, device="meta")
    position = torch.full((2, 1), 40, device="meta")
    flops = count(lambda: model(input_ids=token, past_key_values=cache, position_ids=position))
    assert flops == shape.decode_flops(2, 40)


def test_cpu_counts_like_meta():
    """Before torch 2.15 the counter misses fused attention on the CPU; only that may differ."""
    models = llama("meta"), llama("cpu")
    on_meta, on_cpu = (count(lambda m=model: prefill(m, 2, 40)) for model in models)
    attention = LAYERS * 4 * 2 * 40**2 * HEADS * DIM
    version = tuple(int(x) for x in torch.__version__.split(".")[:2])
    assert on_meta - on_cpu == (0 if version >= (2, 15) else attention)


def test_vit_block_and_convolution_on_meta():
    layer = torch.nn.TransformerEncoderLayer(
        64, 4, 256, activation="gelu", batch_first=True, norm_first=True, device="meta"
    )
    x = torch.zeros(2, 49, 64, device="meta")
    # In training mode: the fast path of eval mode is one opaque operator.
    assert count(lambda: layer(x)) == VitBlock(64, 4, 256).prefill_flops(2, 49)
    assert sum(p.numel() for p in layer.parameters()) == VitBlock(64, 4, 256).params()
    conv = torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, device="meta")
    shape = Conv2d(4, 8, 3, stride=2, groups=2, bias=True)
    image = torch.zeros(2, 4, 32, 48, device="meta")
    assert count(lambda: conv(image)) == shape.prefill_flops(2, 32 * 48)
    assert sum(p.numel() for p in conv.parameters()) == shape.params()


class PeakMemory(TorchDispatchMode):
    """Largest sum of bytes of the live tensors that operators made inside the context."""

    def __init__(self, known: set[torch.Tensor]):
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor)
        return out

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.live and key not in self.known:
            self.live[key] = storage.nbytes()
            weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))


@pytest.fixture
def opaque_elementwise(monkeypatch):
    """Elementwise work makes its outputs and nothing else, as where it is compiled."""

    def wrap(function):
        def call(*args):
            with _disable_current_modes():
                out = function(*args)
            torch.utils._pytree.tree_map_only(torch.Tensor, see, out)
            return out

        return call

    def see(tensor):
        for mode in _get_current_dispatch_mode_stack():
            mode.see(tensor)

    for name in ("operand", "norm", "add_norm", "silu_gate", "gelu", "rotate"):
        monkeypatch.setattr(ops, name, wrap(getattr(ops, name)))


@pytest.mark.parametrize(
    "block",
    [
        Attention(HIDDEN, HEADS, KV, DIM),
        Attention(HIDDEN, HEADS, HEADS, DIM),
        Attention(HIDDEN, HEADS, HEADS, DIM, cached=False),
        FFN(HIDDEN, WIDTH),
        FFN(HIDDEN, WIDTH, gated=False),
        Linear(HIDDEN, HIDDEN),
    ],
    ids=lambda block: block.key(),
)
def test_activation_peaks(block, opaque_elementwise):
    module = build(block, "fp32", "cpu")
    x, delta = torch.zeros(100, HIDDEN), torch.zeros(100, HIDDEN)
    cos, sin = Rope(DIM).table(50, torch.float32, "cpu")
    step = Step(2, cos, sin, torch.arange(50), decode=False)
    known = {*module.parameters(), cos, sin, step.positions_T}
    with PeakMemory(known) as memory, torch.no_grad():
        module((x, delta), step)
    # The tracker sees what operators make; the stream was there before. The CPU's kernel returns
    # a number a query for the backward pass, which GPUs leave out in inference.
    statistics = 4 * 100 * block.heads if isinstance(block, Attention) else 0
    made = memory.peak - statistics
    assert made + x.nbytes + delta.nbytes == block.activation_bytes(2, 50, "fp32")


def test_stand_ins():
    linear = torch.nn.Linear(64, 32, bias=False, device="meta")
    x = torch.zeros(2, 5, 64, device="meta")
    assert count(lambda: linear(x)) == Linear(64, 32).prefill_flops(2, 5)
    assert NoOp().prefill_flops(2, 5) == NoOp().params() == NoOp().decode_bytes(2, 5, "bf16") == 0
