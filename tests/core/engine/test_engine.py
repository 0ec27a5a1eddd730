"""Engines: a prefill and decode steps are one long prefill, whatever the stack is made of."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from adaptive.core.cost import (
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
    decoder,
)
from adaptive.core.engine import CONTEXT_STRIDE, Engine, Generation, Rope, engine_call
from adaptive.core.engine.modules import Matrix
from adaptive.core.errors import UserError

H, VOCAB = 16, 60
WINDOWED = Attention(H, 4, 2, 8, window=3)
STACKS: dict[str, Stack] = {
    "plain": decoder(H, VOCAB, [(Attention(H, 4, 2, 8), FFN(H, 32))] * 2),
    "heterogeneous": decoder(
        H,
        VOCAB,
        [
            (Attention(H, 4, 1, 8), NoOp()),
            (Linear(H, H, bias=True), FFN(H, 16)),
            (NoOp(), Linear(H, H)),
            (WINDOWED, FFN(H, 48, gated=False, bias=True, norm_bias=True)),
            (Attention(H, 8, 8, 8, bias=True, out_bias=True, qk_norm=True), FFN(H, 32)),
        ],
    ),
    "tied": decoder(H, VOCAB, [(WINDOWED, FFN(H, 32))], tied=True),
    "every position": decoder(H, VOCAB, [(WINDOWED, FFN(H, 32))], every_position=True),
    "positions": Stack((Embedding(VOCAB, H, 12), Attention(H, 4, 2, 8), Head(H, VOCAB))),
    "no attention": decoder(H, VOCAB, [(NoOp(), FFN(H, 32))]),
    "nothing": decoder(H, VOCAB, [(NoOp(), NoOp())] * 3),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=STACKS)
def stack(request) -> Stack:
    return STACKS[request.param]


def engine_of(stack: Stack, device: str = "cpu", dtype: str = "fp32", **options: Any) -> Engine:
    """An engine in which no bias is zero and no norm is one."""
    engine = Engine(stack, dtype, device, **options)
    for name, weight in engine.named_parameters():
        if weight.ndim == 1:
            weight.normal_(mean=1.0 if "norm" in name and "bias" not in name else 0.0, std=0.3)
    return engine


def prompt_of(batch: int, length: int, device: str | torch.device = "cpu") -> torch.Tensor:
    return torch.randint(VOCAB, (batch, length), device=device)


def last_of(logits: torch.Tensor, batch: int) -> torch.Tensor:
    return logits.view(batch, -1, logits.shape[-1])[:, -1]


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """True, or an error that says where the two differ."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    return True


def check_decode_equals_prefill(engine: Engine, batch: int, prompt: int, total: int) -> None:
    ids_BT = prompt_of(batch, total)
    caches = engine.make_caches(batch, total)
    logits, _ = engine.prefill(ids_BT[:, :prompt], caches)
    assert close(last_of(logits, batch), last_of(engine.prefill(ids_BT[:, :prompt])[0], batch))
    for position in range(prompt, total):
        logits, ids_B = engine.decode(ids_BT[:, position], position, caches)
        assert close(logits, last_of(engine.prefill(ids_BT[:, : position + 1])[0], batch))
        assert torch.equal(ids_B, logits.argmax(-1))


@pytest.mark.parametrize("prompt", [1, 4])
def test_decode_equals_prefill(stack, prompt):
    check_decode_equals_prefill(engine_of(stack), 3, prompt, 9)


ATTENTIONS = st.builds(
    Attention,
    hidden=st.just(H),
    heads=st.just(4),
    kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.just(8),
    bias=st.booleans(),
    qk_norm=st.booleans(),
    window=st.sampled_from([0, 1, 2, 5, 50]),
)
FFNS = st.builds(FFN, st.just(H), st.integers(1, 20), gated=st.booleans(), bias=st.booleans())
STAND_INS = st.sampled_from([NoOp(), Linear(H, H), Linear(H, H, bias=True)])
LAYERS = st.lists(st.tuples(ATTENTIONS | STAND_INS, FFNS | STAND_INS), max_size=4)


@settings(max_examples=20)
@given(layers=LAYERS, tied=st.booleans(), batch=st.integers(1, 3), prompt=st.integers(1, 6))
def test_random_stacks(layers, tied, batch, prompt):
    stack = decoder(H, VOCAB, layers, tied=tied)
    engine = engine_of(stack)
    assert sum(weight.numel() for weight in engine.parameters()) == stack.params()
    assert len(engine.blocks) == sum(not isinstance(b, NoOp) for layer in layers for b in layer)
    check_decode_equals_prefill(engine, batch, prompt, prompt + 3)
    check_flops(stack, batch, prompt)


def test_sub_blocks_are_added_to_the_residual_stream():
    engine, ids_BT = engine_of(STACKS["heterogeneous"]), prompt_of(2, 5)
    step = engine.prefill_step(2, 5)
    x_MH = engine.embedding.weight[ids_BT.flatten()]
    for block in engine.blocks:
        x_MH = x_MH + block((x_MH, None), step)[1]
    logits, ids_B = engine.prefill(ids_BT)
    assert close(logits, engine.head((x_MH, None), 2)[0])
    assert logits.shape == (2, VOCAB) and torch.equal(ids_B, logits.argmax(-1))


def test_every_position_has_logits():
    engine, ids_BT = engine_of(STACKS["every position"]), prompt_of(2, 5)
    logits_BTV = engine.prefill(ids_BT)[0].view(2, 5, VOCAB)
    for end in range(1, 6):
        assert close(logits_BTV[:, end - 1], last_of(engine.prefill(ids_BT[:, :end])[0], 2))


def test_sequences_do_not_see_each_other(stack):
    engine, ids_BT = engine_of(stack), prompt_of(3, 6)
    together = last_of(engine.prefill(ids_BT)[0], 3)
    assert close(
        together, torch.cat([last_of(engine.prefill(ids_T[None])[0], 1) for ids_T in ids_BT])
    )


# Steps whose position is a tensor.

AROUND_STRIDES = [0, 1, 126, 127, 128, 129, 200, 255, 256]


@torch.no_grad()
@pytest.mark.parametrize("window", [0, 1, 5, 127, 128, 129, 200, 1000])
def test_masked_steps_equal_exact_ones(window):
    """Attended slots rounded up, and garbage in those that hold nothing yet."""
    first, second = Attention(H, 4, 2, 8), Attention(H, 4, 2, 8, window=window)
    engine = engine_of(decoder(H, VOCAB, [(second, FFN(H, 16)), (first, second)]))
    capacity = 3 * CONTEXT_STRIDE
    ids_BT = prompt_of(2, max(AROUND_STRIDES) + 1)
    filled = engine.make_caches(2, capacity)
    engine.prefill(ids_BT, filled)
    for position in AROUND_STRIDES:
        caches, ids_B = copy.deepcopy(filled), ids_BT[:, position]
        for cache in caches:
            if cache is not None:
                cache.keys[:, :, position:] = 1e3 * torch.randn(2, 2, capacity - position, 8)
                cache.values[:, :, position:] = 1e3 * torch.randn(2, 2, capacity - position, 8)
        exact = copy.deepcopy(caches)
        attended = (position // CONTEXT_STRIDE + 1) * CONTEXT_STRIDE
        step = engine.masked_step(2, torch.tensor([position]), attended)
        logits, chosen_B = engine(ids_B, step, caches)
        wanted, wanted_B = engine.decode(ids_B, position, exact)
        assert close(logits, wanted)
        assert torch.equal(chosen_B, wanted_B)
        assert close(wanted, engine.prefill(ids_BT[:, : position + 1])[0])
        for found, kept in zip(caches, exact, strict=True):
            if found is not None and kept is not None:
                assert close(found.keys, kept.keys)
                assert close(found.values, kept.values)


def test_a_step_leaves_the_other_slots_alone():
    engine = engine_of(STACKS["plain"])
    caches = engine.make_caches(2, 9)
    engine.decode(prompt_of(2, 1)[:, 0], 4, caches)
    for cache in caches:
        if cache is not None:
            written = cache.keys.abs().sum((0, 1, 3)) > 0
            assert written.tolist() == [slot == 4 for slot in range(9)]


# Generations.


def greedy(engine: Engine, ids_BT: torch.Tensor, output: int) -> torch.Tensor:
    """Generation without caches: the whole text is read again for every token."""
    batch, prompt = ids_BT.shape
    for _ in range(output):
        next_B = last_of(engine.prefill(ids_BT)[0], batch).argmax(-1)
        ids_BT = torch.cat((ids_BT, next_B[:, None]), 1)
    return ids_BT[:, prompt:]


@pytest.mark.parametrize("output", [1, 2, 6])
@pytest.mark.parametrize("name", ["heterogeneous", "tied", "positions", "nothing"])
def test_generation_equals_a_loop(name, output):
    engine, ids_BT = engine_of(STACKS[name]), prompt_of(3, 4)
    caches = engine.make_caches(3, 4 + output)
    found = [engine.prefill(ids_BT, caches)[1]]
    for position in range(4, 4 + output - 1):
        found.append(engine.decode(found[-1], position, caches)[1])
    wanted = torch.stack(found, 1)
    assert torch.equal(Generation(engine, 3, 4, output).run(ids_BT), wanted)
    assert torch.equal(greedy(engine, ids_BT, output), wanted)


def test_generations_follow_their_prompts():
    """A second run starts anew and leaves the first one's result alone."""
    engine = engine_of(STACKS["heterogeneous"])
    generation, prompts = Generation(engine, 2, 4, 5), [prompt_of(2, 4) for _ in range(3)]
    found = [generation.run(ids_BT) for ids_BT in prompts]
    for ids_BT, tokens_BO in zip(prompts, found, strict=True):
        assert torch.equal(tokens_BO, greedy(engine, ids_BT, 5))
    assert len({tuple(tokens_BO.flatten().tolist()) for tokens_BO in found}) == 3


# What an engine holds and counts.


def test_parameters(stack):
    engine = engine_of(stack)
    assert sum(weight.numel() for weight in engine.parameters()) == stack.params()


def test_tied_ends_share_their_matrix():
    engine = Engine(STACKS["tied"], "fp32", "cpu")
    assert engine.head.matrix.weight is engine.embedding.weight
    assert Engine(STACKS["plain"], "fp32", "cpu").head.matrix.weight.ne(0).any()


def test_no_ops_leave_no_modules():
    engine = Engine(STACKS["nothing"], "fp32", "cpu")
    assert len(engine.blocks) == 0 and engine.make_caches(2, 8) == []
    kinds = [block.kind for block in Engine(STACKS["heterogeneous"], "fp32", "cpu").shapes]
    assert kinds == ["attention", "linear", "ffn", "linear", "attention", "ffn", "attention", "ffn"]


def test_caches(stack):
    engine = Engine(stack, "bf16", "cpu")
    caches = engine.make_caches(3, 10)
    assert [cache is not None for cache in caches] == [
        isinstance(block, Attention) for block in engine.shapes
    ]
    held = sum(cache.nbytes for cache in caches if cache is not None)
    assert held == 3 * 10 * stack.kv_bytes_per_token("bf16")


def count(call) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def check_flops(stack: Stack, batch: int, length: int) -> None:
    wanted = {
        "prefill": stack.prefill_flops(batch, length),
        "decode": stack.decode_flops(batch, length),
    }
    for device in ("cpu", "meta"):
        engine = Engine(stack, "fp32", device)
        prefill = count(lambda e=engine: e.prefill(prompt_of(batch, length, e.device)))
        assert prefill == wanted["prefill"], device
        ids_B, caches = prompt_of(batch, 1, device)[:, 0], engine.make_caches(batch, length + 1)
        decode = count(lambda e=engine, i=ids_B, c=caches: e.decode(i, length, c))
        assert decode == wanted["decode"], device


@pytest.mark.parametrize("length", [1, 2, 9])
def test_cpu_and_meta_count_the_flops_of_the_shapes(stack, length):
    check_flops(stack, 2, length)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp8"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dtypes(dtype, device):
    engine = Engine(STACKS["heterogeneous"], dtype, device)
    logits, ids_B = engine_call(engine, "decode", 2, 5)()
    activations = {"fp32": torch.float32, "fp16": torch.float16}.get(dtype, torch.bfloat16)
    assert logits.dtype == activations and logits.shape == (2, VOCAB) and ids_B.shape == (2,)
    assert device == "meta" or logits.isfinite().all()


def quantised_copy(engine: Engine) -> Engine:
    """An engine of fp8 with the weights of another one."""
    copied = Engine(engine.stack, "fp8", engine.device)
    for name, weight in engine.named_parameters():
        owner, _, field = name.rpartition(".")
        module = copied.get_submodule(owner)
        if isinstance(module, Matrix) and field == "weight":
            module.load(weight)
        else:
            module.get_parameter(field).copy_(weight)
    return copied


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten())).float())[0, 1].item()


WIDE = decoder(64, VOCAB, [(Attention(64, 4, 2, 16, window=5), FFN(64, 128))] * 2)


@torch.no_grad()
def test_fp8_is_close_to_bf16():
    engine = engine_of(WIDE, dtype="bf16")
    ids_BT = prompt_of(4, 8)
    wanted, found = engine.prefill(ids_BT)[0], quantised_copy(engine).prefill(ids_BT)[0]
    assert correlation(found, wanted) > 0.99 and not torch.equal(found, wanted)


# Rotary embeddings.


def test_frequencies():
    theta = 500_000.0
    wanted = torch.tensor([theta ** (-i / 128) for i in range(0, 128, 2)])
    torch.testing.assert_close(Rope(128).frequencies, wanted, rtol=2e-7, atol=0)
    cos, sin = Rope(8, torch.tensor([1.0, 0.5, 0.25, 0.0]), scaling=2.0).table(
        5, torch.float32, "cpu"
    )
    angles = torch.arange(5)[:, None] * torch.tensor([1.0, 0.5, 0.25, 0.0] * 2)
    assert cos.shape == sin.shape == (5, 8)
    assert close(cos, 2 * angles.cos()), close(sin, 2 * angles.sin())


def test_the_rotary_embedding_given_is_used():
    ids_BT, stack = prompt_of(2, 6), STACKS["plain"]
    engines = []
    for rope in (Rope(8), None, Rope(8, torch.zeros(4))):
        torch.manual_seed(2)
        engines.append(Engine(stack, "fp32", "cpu", rope))
    given, default, none = (engine.prefill(ids_BT)[0] for engine in engines)
    assert torch.equal(given, default) and not torch.allclose(default, none)


def test_tables_that_graphs_may_read_outlive_longer_ones():
    engine = Engine(STACKS["plain"], "fp32", "cpu")
    step = engine.masked_step(1, torch.tensor([3]), CONTEXT_STRIDE)
    table = engine._rotary(1)[0]
    short, values = weakref.ref(table), table.clone()
    del table
    engine.prefill_step(1, 5000)
    again = short()
    assert again is not None and torch.equal(again, values)
    assert torch.equal(engine.masked_step(1, torch.tensor([3]), 5000).cos_TD, step.cos_TD)


# Refusals.

EMBEDDING, HEAD = Embedding(VOCAB, H), Head(H, VOCAB)


def stack_of(*blocks: Block) -> Stack:
    return Stack((EMBEDDING, *blocks, HEAD))


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (Stack(()), "embedding first, head last"),
        (Stack((HEAD,)), "embedding first, head last"),
        (Stack((EMBEDDING,)), "embedding first, head last"),
        (Stack((EMBEDDING, FFN(H, 16))), "embedding first, head last"),
        (Stack((Conv2d(3, H, 4, 4), HEAD)), "embedding first, head last"),
        (stack_of(VitBlock(H, 4, 8)), r"an engine runs decoders, .*: not vit_block\("),
        (stack_of(Attention(H, 4, 2, 8, cached=False)), r"an engine runs decoders, .*cached=0"),
        (stack_of(Conv2d(H, H, 3)), r"an engine runs decoders, .*: not conv2d\("),
        (stack_of(Norm(H)), r"an engine runs decoders, .*: not norm\("),
        (stack_of(stack_of()), r"an engine runs decoders, .*: not stack\("),
        (stack_of(Attention(H, 4, 2, 8), Attention(H, 4, 2, 4)), r"head_dim out of \[4, 8\]"),
    ],
)
def test_stacks_that_are_no_decoders_are_refused(stack, message):
    with pytest.raises(UserError, match=message) as refused:
        Engine(stack, "fp32", "cpu")
    assert "\n" not in str(refused.value)


def test_dtypes_that_cannot_run_are_refused():
    with pytest.raises(UserError, match="dtype=int4 cannot be run, choose one of fp32, bf16"):
        Engine(STACKS["plain"], "int4", "cpu")


# On a GPU generations are graphs.


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("prompt", [1, 120, 1010])
def test_graphs_equal_eager_steps(prompt):
    """Past a stride of the context, and past a table of rotary embeddings."""
    layers = [(Attention(64, 4, 2, 16, window=w), FFN(64, 128)) for w in (0, 30, 200)]
    engine, output = engine_of(decoder(64, VOCAB, layers), "cuda"), 30
    generation = Generation(engine, 3, prompt, output)
    Generation(engine, 1, 3000, 2)  # another one, with a table of its own
    # Where memory was freed; small buffers and large ones come from different pools.
    sizes = [1 << 14] * 200 + [1 << 20]
    garbage = [torch.full((size,), torch.nan, device="cuda") for size in sizes]
    for _ in range(2):
        ids_BT = prompt_of(3, prompt, "cuda")
        caches = engine.make_caches(3, prompt + output)
        wanted = [engine.prefill(ids_BT, caches)[1]]
        for position in range(prompt, prompt + output - 1):
            wanted.append(engine.decode(wanted[-1], position, caches)[1])
        assert torch.equal(generation.run(ids_BT), torch.stack(wanted, 1))
    del garbage


@pytest.mark.gpu
@torch.no_grad()
def test_fp8_is_close_to_bf16_on_a_gpu():
    engine = engine_of(WIDE, "cuda", "bf16")
    quantised, ids_BT = quantised_copy(engine), prompt_of(4, 9, "cuda")
    logits = []
    for each in (engine, quantised):
        caches = each.make_caches(4, 9)
        read = each.prefill(ids_BT[:, :8], caches)[0]
        logits.append(torch.cat((read, each.decode(ids_BT[:, 8], 8, caches)[0])))
    assert correlation(*logits) > 0.99
