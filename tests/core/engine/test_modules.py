"""Modules hold what shapes count and compute what float64 formulas say."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adaptive.core.cost import (
    BLOCKS,
    FFN,
    Attention,
    Block,
    Conv2d,
    Embedding,
    Head,
    Linear,
    NoOp,
    Norm,
    Stack,
    VitBlock,
)
from adaptive.core.engine import MODULES, TORCH_DTYPES, KVCache, Rope, Step, build, ops
from adaptive.core.engine.modules import Matrix
from adaptive.core.errors import UserError

EVERY_BIAS = {"bias": True, "norm_bias": True}
ATTENTION = [
    Attention(16, 4, 2, 8),
    Attention(16, 8, 8, 4),
    Attention(32, 6, 1, 8, out_bias=True, **EVERY_BIAS),
    Attention(16, 4, 2, 8, qk_norm=True),
    Attention(16, 4, 2, 8, norm=False),
    Attention(16, 4, 2, 8, window=1),
    Attention(16, 4, 2, 8, window=3),
    Attention(16, 4, 2, 8, window=100),
    Attention(16, 4, 2, 8, bias=True, qk_norm=True, cached=False),
]
POINTWISE = [
    FFN(16, 32),
    FFN(16, 32, **EVERY_BIAS),
    FFN(16, 32, norm=False),
    FFN(16, 32, gated=False),
    FFN(16, 32, gated=False, **EVERY_BIAS),
    Linear(16, 16),
    Linear(16, 32, **EVERY_BIAS),
    Linear(16, 32, bias=True, norm=False),
]
VIT = [VitBlock(16, 4, 32), VitBlock(16, 2, 48, layer_scale=True)]
ENDS = [
    Norm(16),
    Norm(16, bias=True),
    Embedding(50, 16),
    Embedding(50, 16, positions=40),
    Head(16, 50),
    Head(16, 50, **EVERY_BIAS),
    Head(16, 50, norm=False),
    Head(16, 50, tied=True),
    Head(16, 50, every_position=True),
]
CONVOLUTIONS = [
    Conv2d(3, 8, 3),
    Conv2d(4, 8, 3, stride=2, groups=2, bias=True),
    Conv2d(4, 8, 1, norm=True),
    Conv2d(4, 8, 3, stride=2, bias=True, norm=True),
]
CASES = [*ATTENTION, *POINTWISE, *VIT, *ENDS, *CONVOLUTIONS]


def named(blocks):
    return pytest.mark.parametrize("block", blocks, ids=lambda block: block.key())


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(block: Block, dtype: str = "fp32"):
    """A module in which no bias is zero and no norm is one."""
    module = build(block, dtype, "cpu")
    for weight in module.parameters():
        if weight.ndim == 1:
            weight.normal_()
    return module


def prefill_of(block: Block, batch: int, length: int) -> Step:
    cos, sin = Rope(getattr(block, "head_dim", 2)).table(length, torch.float32, "cpu")
    return Step(batch, cos, sin, torch.arange(length), decode=False)


def call(module, block: Block, batch: int = 2, length: int = 4):
    """An output of a module, from inputs that are the same in every call."""
    generator = torch.Generator().manual_seed(1)
    step = prefill_of(block, batch, length)
    if isinstance(block, Conv2d):
        return module(torch.randn(batch, block.inputs, 8, 8, generator=generator))
    if isinstance(block, Embedding):
        ids_M = torch.randint(block.vocab, (batch * length,), generator=generator)
        return module(ids_M, step.positions_T)
    width = block.inputs if isinstance(block, Linear) else block.hidden  # type: ignore
    stream = tuple(torch.randn(2, batch * length, width, generator=generator))
    return module(stream, batch)[0] if isinstance(block, Head) else module(stream, step)[1]


def test_every_registered_shape_has_a_case():
    kinds = {block.kind for block in CASES}
    assert kinds == set(BLOCKS) - {"noop"}
    assert {shape.kind for shape in MODULES} == kinds - {"vit_block"}


def built_params(block: Block) -> int:
    """Parameters of a module that stands alone."""
    extra = 0
    if isinstance(block, Head) and block.tied:
        extra = block.hidden * block.vocab  # the embedding's, not counted but read
    if isinstance(block, Conv2d) and block.norm:
        extra = -(1 + block.bias) * block.outputs  # scale, shift and bias are folded into one bias
    return block.params() + extra


@named(CASES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_parameters(block, dtype):
    module = build(block, dtype, "cpu")
    weights = {n: w for n, w in module.named_parameters() if not n.endswith("scale_1X")}
    assert sum(weight.numel() for weight in weights.values()) == built_params(block)
    assert not list(module.buffers()) and not any(w.requires_grad for w in weights.values())
    widths = {weight.dtype for weight in weights.values()}
    quantised = dtype == "fp8" and block.quantised and not isinstance(block, Conv2d)
    assert widths <= {TORCH_DTYPES[dtype], *([ops.FP8] if quantised else [])}
    assert (ops.FP8 in widths) == quantised


@named(CASES)
def test_every_parameter_counts(block):
    module = make(block)
    before = call(module, block)
    for name, weight in module.named_parameters():
        kept = weight.clone()
        weight += torch.randn_like(weight)
        assert not torch.allclose(call(module, block), before), f"{name} changes nothing"
        weight.copy_(kept)
    assert torch.equal(call(module, block), before)


# Independent formulas, in float64. H hidden size, N query heads, K KV heads, D head size.


def normed(norm, x: torch.Tensor) -> torch.Tensor:
    if norm.weight is None:
        return x
    if norm.bias is not None:
        x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()
    return x if norm.bias is None else x + norm.bias.double()


def product(matrix: Matrix, x: torch.Tensor) -> torch.Tensor:
    y = x @ matrix.weight.double().t()
    return y if matrix.bias is None else y + matrix.bias.double()


def head_normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * weight.double()


def turned(x_D: torch.Tensor, position: int) -> torch.Tensor:
    left, right = x_D.chunk(2)
    angle = position * 500_000.0 ** -(torch.arange(0, len(x_D), 2).double() / len(x_D))
    z = torch.complex(left, right) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((z.real, z.imag))


def attended(module, block: Attention, x_BTH: torch.Tensor) -> torch.Tensor:
    """Attention head by head and token by token, [B, T, H]."""
    N, K, D = block.heads, block.kv_heads, block.head_dim
    B, T, _ = x_BTH.shape
    qkv = product(module.qkv, normed(module.norm, x_BTH))
    q, k, v = qkv.split([N * D, K * D, K * D], -1)
    q, k, v = q.view(B, T, N, D).clone(), k.view(B, T, K, D).clone(), v.view(B, T, K, D)
    for x, weight in ((q, "q_norm"), (k, "k_norm")):
        for b, t, head in itertools.product(range(B), range(T), range(x.shape[2])):
            if block.qk_norm:
                x[b, t, head] = head_normed(x[b, t, head], getattr(module, weight))
            if block.cached:
                x[b, t, head] = turned(x[b, t, head], t)
    out = torch.zeros(B, T, N, D, dtype=torch.float64)
    for b, t, n in itertools.product(range(B), range(T), range(N)):
        last = t + 1 if block.cached else T
        first = max(0, last - block.window) if block.window else 0
        keys, values = k[b, first:last, n * K // N], v[b, first:last, n * K // N]
        weights = (keys @ q[b, t, n] / math.sqrt(D)).exp()
        out[b, t, n] = weights @ values / weights.sum()
    return product(module.out, out.reshape(B, T, N * D))


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """True, or an error that says where the two differ."""
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    return True


@named(ATTENTION)
def test_attention_in_prefill(block):
    module, batch, length = make(block), 2, 7
    stream = tuple(torch.randn(2, batch * length, block.hidden))
    x_MH, delta_MH = module(stream, prefill_of(block, batch, length))
    assert torch.equal(x_MH, stream[0] + stream[1])
    wanted = attended(module, block, x_MH.double().view(batch, length, -1))
    assert close(delta_MH.view(batch, length, -1), wanted)
    # The first sub-block of a model meets a stream with nothing left to add.
    alone, again = module((x_MH, None), prefill_of(block, batch, length))
    assert torch.equal(alone, x_MH) and torch.equal(again, delta_MH)


@named([block for block in ATTENTION if block.cached])
def test_attention_in_decode(block):
    """Tokens 5, 6 and 7 after a prefill of 5; slots beyond them hold garbage."""
    module, batch, prompt, total, room = make(block), 2, 5, 8, 11
    x_BTH = torch.randn(batch, total, block.hidden)
    wanted = attended(module, block, x_BTH.double())
    cache = KVCache.empty(block, batch, room, "fp32", "cpu")
    cache.keys.normal_(), cache.values.normal_()
    cos, sin = Rope(block.head_dim).table(total, torch.float32, "cpu")
    module((x_BTH[:, :prompt].flatten(0, 1), None), prefill_of(block, batch, prompt), cache)
    for position in range(prompt, total):
        place = slice(position, position + 1)
        positions_T = torch.tensor([position])
        step = Step(batch, cos[place], sin[place], positions_T, True, attended=position + 1)
        assert close(module((x_BTH[:, position], None), step, cache)[1], wanted[:, position])


@named(POINTWISE)
def test_pointwise_blocks(block):
    module = make(block)
    stream = tuple(torch.randn(2, 6, 16))
    x_MH, delta_MH = module(stream, prefill_of(block, 2, 3))
    assert torch.equal(x_MH, stream[0] + stream[1])
    x = normed(module.norm, x_MH.double())
    if isinstance(block, Linear):
        wanted = product(module.matrix, x)
    else:
        inner = product(module.up, x)
        if block.gated:
            gate, up = inner[:, : block.intermediate], inner[:, block.intermediate :]
            inner = gate * torch.sigmoid(gate) * up
        else:
            inner = inner / 2 * (1 + torch.erf(inner / math.sqrt(2)))
        wanted = product(module.down, inner)
    assert close(delta_MH, wanted)


@named(VIT)
def test_vit_blocks_equal_torchs_layers(block):
    module, H = make(block), block.hidden
    attention, ffn = module.parts
    norms = [nn.LayerNorm(H, eps=1e-6) for _ in range(2)]
    torchs = nn.MultiheadAttention(H, block.heads, batch_first=True)
    mlp = [nn.Linear(H, block.intermediate), nn.Linear(block.intermediate, H)]
    torchs.in_proj_weight.data, torchs.in_proj_bias.data = attention.qkv.weight, attention.qkv.bias
    pairs = [*zip(norms, (attention.norm, ffn.norm), strict=True)]
    pairs += [(torchs.out_proj, attention.out), (mlp[0], ffn.up), (mlp[1], ffn.down)]
    for theirs, ours in pairs:
        theirs.weight.data, theirs.bias.data = ours.weight, ours.bias
    for layer in (*norms, torchs, *mlp):
        layer.double()
    scales = [scale.double() for scale in module.scales] if block.layer_scale else [1.0, 1.0]

    x_BTH = torch.randn(2, 9, H)
    with torch.no_grad():
        x = x_BTH.double()
        y = norms[0](x)
        x = x + scales[0] * torchs(y, y, y, need_weights=False)[0]
        wanted = x + scales[1] * mlp[1](F.gelu(mlp[0](norms[1](x))))
    x_MH, delta_MH = module((x_BTH.flatten(0, 1), None), prefill_of(block, 2, 9))
    assert close((x_MH + delta_MH).view_as(x_BTH), wanted)


def test_embeddings():
    plain, placed = make(Embedding(50, 16)), make(Embedding(50, 16, positions=40))
    ids_M = torch.randint(50, (6,))
    assert torch.equal(plain(ids_M, torch.arange(3)), plain.weight[ids_M])
    positions_T = torch.tensor([4, 5, 6])
    wanted = placed.weight[ids_M] + placed.positions[positions_T.repeat(2)]
    assert torch.equal(placed(ids_M, positions_T), wanted)


@named([block for block in ENDS if isinstance(block, Norm)])
def test_norms_that_stand_alone(block):
    module = make(block)
    stream = tuple(torch.randn(2, 6, 16))
    x_MH, normed_MH = module(stream, prefill_of(block, 2, 3))
    assert torch.equal(x_MH, stream[0] + stream[1])
    assert close(normed_MH, normed(module.norm, x_MH.double()))


@named([block for block in ENDS if isinstance(block, Head)])
def test_heads(block):
    module = make(block)
    stream = tuple(torch.randn(2, 6, 16))
    wanted = product(module.matrix, normed(module.norm, (stream[0] + stream[1]).double()))
    wanted = wanted if block.every_position else wanted[[2, 5]]  # the last of three positions
    logits, ids = module(stream, 2)
    assert close(logits, wanted)
    assert torch.equal(ids, wanted.argmax(-1))
    assert close(module((stream[0] + stream[1], None), 2)[0], wanted)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_maps_shrink_by_the_stride_alone(kernel, stride):
    block = Conv2d(2, 3, kernel, stride)
    out = build(block, "fp32", "cpu")(torch.randn(1, 2, 12, 24))
    assert out.shape == (1, 3, 12 // stride, 24 // stride)
    assert out.shape[2] * out.shape[3] == block.out_length(12 * 24)


def test_convolutions_take_a_folded_batch_norm():
    block = Conv2d(4, 8, 3, stride=2, bias=True, norm=True)
    conv, norm = nn.Conv2d(4, 8, 3, 2, padding=1).double(), nn.BatchNorm2d(8).double().eval()
    statistics = norm.state_dict()
    for name in ("weight", "bias", "running_mean"):
        statistics[name].normal_()
    statistics["running_var"].uniform_(0.5, 2.0)
    module, x = build(block, "fp32", "cpu"), torch.randn(2, 4, 8, 8)
    folded = nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm)
    module.conv.load_state_dict(folded.state_dict())
    with torch.no_grad():
        assert close(module(x), norm(conv(x.double())).relu())


@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
def test_fp8_weights_are_within_e4m3(spread):
    matrix = Matrix(32, 48, False, True, torch.empty(0, dtype=torch.bfloat16))
    weight = (spread * torch.randn(48, 32) * torch.logspace(-2, 2, 48)[:, None]).bfloat16()
    matrix.load(weight)
    assert matrix.weight.dtype == torch.float8_e4m3fn
    assert matrix.scale_1X.shape == (1, 48) and matrix.scale_1X.is_contiguous()
    scale = matrix.scale_1X.double().t()
    error = (matrix.weight.double() * scale - weight.double()).abs()
    # Half a step of three bits of mantissa; below e4m3's smallest normal number steps are equal.
    assert (error <= 2**-4 * weight.double().abs() + 2**-10 * scale).all()
    assert error.max() > 0


@pytest.mark.parametrize("bias", [False, True])
def test_fp8_products(bias):
    matrix = Matrix(32, 48, bias, True, torch.empty(0, dtype=torch.bfloat16))
    weight, x = torch.randn(48, 32).bfloat16(), torch.randn(6, 32).bfloat16()
    shift = torch.randn(48).bfloat16() if bias else None
    matrix.load(weight, shift)
    values, scale = operand = ops.operand(x, True)
    try:
        found = matrix(operand).double()
    except (NotImplementedError, RuntimeError) as error:
        pytest.skip(f"torch._scaled_mm does not run here: {error}")
    weights = matrix.weight.double() * matrix.scale_1X.double().t()
    exact = (values.double() * scale.double()) @ weights.t()
    bound = 2**-8 * exact.abs() + 1e-4  # the product is rounded to the 8 bits of bf16
    if shift is not None:
        exact = exact + shift.double()
        bound += 2**-8 * exact.abs()  # and so is the sum
    assert ((found - exact).abs() <= bound).all()
    plain = F.linear(x.double(), weight.double(), None if shift is None else shift.double())
    assert (found - plain).norm() < 2**-4 * plain.norm()


def test_load_keeps_shape_and_dtype():
    matrix = Matrix(4, 3, True, False, torch.empty(0))
    weight, bias = torch.randn(3, 4).double(), torch.randn(3).double()
    matrix.load(weight, bias)
    x = torch.randn(2, 4)
    assert all(part.dtype == torch.float32 for part in matrix.parameters())
    assert close(matrix(x), x.double() @ weight.t() + bias)


@named([block for block in ATTENTION if block.cached])
def test_caches(block):
    cache = KVCache.empty(block, 3, 20, "bf16", "cpu")
    full = dataclasses.replace(block, window=0)  # a window limits what is read, not what is kept
    assert cache.nbytes == full.cache_bytes(3, 20, "bf16")
    assert not cache.keys.any() and not cache.values.any()


@dataclasses.dataclass(frozen=True)
class Unknown(FFN):
    kind = "unknown"


@pytest.mark.parametrize(
    ("block", "dtype", "message"),
    [
        (FFN(16, 24), "int4", "dtype=int4 cannot be run, choose one of fp32, bf16, fp16, fp8"),
        (FFN(16, 24), "int8", "dtype=int8 cannot be run"),
        (FFN(16, 24), "fp8", "fp8 needs widths in multiples of 16, not 24 x 16"),
        (NoOp(), "fp32", r"no module runs noop\(\), choose one of attention, ffn"),
        (Unknown(16, 24), "fp32", r"no module runs unknown\(h=16,i=24\), choose one of"),
        (Stack((Unknown(16, 24),)), "fp32", r"no module runs unknown\("),
        (Stack((Norm(16),)), "fp32", r"no module runs norm\(h=16\) inside a stack"),
        (Stack((Conv2d(3, 8, 3),)), "fp32", r"no module runs conv2d\(.*\) inside a stack"),
        (Stack((Attention(16, 4, 2, 8),)), "fp32", r"runs attention\(.*\) inside a stack"),
    ],
)
def test_refusals(block, dtype, message):
    with pytest.raises(UserError, match=message) as refused:
        build(block, dtype, "cpu")
    assert "\n" not in str(refused.value)


def test_encoders_of_several_blocks():
    stack = Stack((VIT[0], NoOp(), FFN(16, 24)))
    module = make(stack)
    assert len(module.parts) == 2
    assert sum(weight.numel() for weight in module.parameters()) == stack.params()
    stream, step = tuple(torch.randn(2, 6, 16)), prefill_of(stack, 2, 3)
    found = module(stream, step)
    for part in module.parts:
        stream = part(stream, step)
    assert torch.equal(torch.stack(found), torch.stack(stream))
