"""Fitted models: least squares that stays positive, known devices found again, too few rows."""

from __future__ import annotations

import h100_like
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adaptive.core.cost import FFN, Attention, Conv2d, Head, Linear, NoOp, VitBlock
from adaptive.core.cost.fit import (
    TERMS,
    Group,
    counts,
    counts_along,
    fit,
    leave_one_out,
    nnls,
)

GROUP = Group("ffn", "prefill", "bf16", "graph")
WIDTHS, TOKENS = (1024, 4096, 14336), [2**k for k in range(13)]
entries = st.floats(-2, 2, allow_subnormal=False).map(lambda x: round(x, 3))


def column(name: str) -> int:
    return TERMS.index(name)


def ffn_counts(multiprocessors: int = 0, tokens=TOKENS, widths=WIDTHS) -> np.ndarray:
    return np.stack(
        [
            counts(FFN(4096, width), "prefill", n, 1, "bf16", multiprocessors)
            for width in widths
            for n in tokens
        ]
    )


@given(arrays(float, (7, 4), elements=entries), arrays(float, 7, elements=entries))
def test_nnls_meets_the_conditions_of_its_optimum(matrix, target):
    solution = nnls(matrix, target)
    gradient = matrix.T @ (matrix @ solution - target)
    assert (solution >= 0).all()
    assert (gradient >= -1e-6).all()
    assert gradient[solution > 0] == pytest.approx(0, abs=1e-6)


def test_the_closed_form_is_leaving_one_out():
    dice = np.random.default_rng(0)
    matrix = dice.uniform(0.5, 1.5, (12, 3)) @ np.diag([1, 0.3, 0.1])
    errors = []
    for i in range(len(matrix)):
        keep = np.arange(len(matrix)) != i
        solution = nnls(matrix[keep], np.ones(len(matrix) - 1))
        assert (solution > 0).tolist() == (nnls(matrix, np.ones(len(matrix))) > 0).tolist()
        errors.append(abs(matrix[i] @ solution - 1))
    assert leave_one_out(matrix) == pytest.approx(np.mean(errors))


@pytest.mark.parametrize(
    "known",
    [
        {"fixed": 25e-6, "bytes": 1 / 3e12, "flops": 1 / 8e14},
        {"fixed": 5e-6, "bytes": 1 / 2e12, "tiles128": 1 / 7e14},
        {"fixed": 5e-6, "bytes": 1 / 2e12, "waves": 1 / 6e14},
        {"fixed": 10e-6, "knee256": 1 / 2.5e12},
    ],
    ids=lambda known: "+".join(known),
)
def test_a_known_device_is_found_again(known):
    amounts = ffn_counts(multiprocessors=132)
    truth = np.zeros(len(TERMS))
    truth[[column(name) for name in known]] = list(known.values())
    found = fit(GROUP, amounts, amounts @ truth)
    assert found is not None and set(found.terms) == set(known)
    assert found.coefficients == pytest.approx(truth, rel=1e-5)
    assert found.error < 1e-6
    assert found.seconds(amounts) == pytest.approx(amounts @ truth)


def test_attention_scores_run_causal_and_the_cache_slower_are_seen():
    sizes = [(1, 127), (4, 127), (1, 2047), (16, 511), (16, 2047), (64, 1023), (64, 127), (2, 8191)]
    blocks = [Attention(4096, 32, kv, 128) for kv in (8, 2)]
    decode = np.stack([counts(b, "decode", *size, "bf16") for b in blocks for size in sizes])
    slow = fit(GROUP, decode, decode[:, column("bytes")] / 3e12 + decode[:, column("cache")] / 1e12)
    assert slow is not None and set(slow.terms) == {"bytes", "cache"}
    assert slow.coefficients[column("cache")] == pytest.approx(1e-12)
    prefill = np.stack([counts(b, "prefill", *size, "bf16") for b in blocks for size in sizes])
    times = prefill[:, column("flops")] / 8e14 + prefill[:, column("scores")] / 16e14 + 1e-5
    causal = fit(GROUP, prefill, times)
    assert causal is not None and causal.coefficients[column("scores")] == pytest.approx(1 / 16e14)


def test_the_model_in_words():
    amounts = ffn_counts()
    times = 25e-6 + amounts[:, column("bytes")] / 3e12 + amounts[:, column("flops")] / 8e14
    found = fit(GROUP, amounts, times)
    assert found is not None
    assert found.describe() == (
        "ffn prefill bf16 graph: 25 us + bytes at 3000 GB/s + flops at 800 TFLOP/s; "
        "leave-one-out error 0.0% over 39 rows"
    )
    kneed = fit(GROUP, amounts, amounts[:, column("knee256")] / 2e12)
    assert kneed is not None
    assert "the slower of bytes at 2000 GB/s and flops at 512 TFLOP/s" in kneed.describe()


@pytest.mark.parametrize(("rows", "most"), [(3, 0), (4, 2), (5, 2), (6, 3), (39, 6)])
def test_few_rows_have_few_terms(rows, most):
    amounts = ffn_counts()
    dice = np.random.default_rng(1)
    picked = dice.permutation(len(amounts))[:rows]
    times = amounts @ np.full(len(TERMS), 1e-14) + 1e-5
    found = fit(GROUP, amounts[picked], times[picked] * np.exp(dice.normal(0, 0.01, rows)))
    if most:
        assert found is not None and 1 <= len(found.terms) <= most
    else:
        assert found is None


def test_noise_buys_no_terms():
    """Times that do not depend on the size have no shape to offer."""
    amounts = ffn_counts()
    for seed in range(5):
        noise = np.exp(np.random.default_rng(seed).normal(0, 0.02, len(amounts)))
        assert fit(GROUP, amounts, 1e-4 * noise) is None
    assert fit(GROUP, amounts, 1e-4 + amounts[:, column("flops")] / 1e14) is not None


def test_counts_follow_the_blocks():
    attention = Attention(64, 8, 2, 16)
    found = dict(zip(TERMS, counts(attention, "decode", 3, 9, "bf16"), strict=True))
    assert found["cache"] == 3 * 10 * 2 * 2 * 16 * 2
    assert found["bytes"] + found["cache"] == attention.decode_bytes(3, 9, "bf16")
    assert found["flops"] == 3 * attention.token_flops()
    assert found["flops"] + found["scores"] == attention.decode_flops(3, 9)
    assert found["tiles64"] == 64 * attention.token_flops()
    conv = dict(zip(TERMS, counts(Conv2d(3, 8, 3, 2), "prefill", 2, 64, "fp32"), strict=True))
    assert (conv["flops"], conv["scores"]) == (Conv2d(3, 8, 3, 2).prefill_flops(2, 64), 0)


def test_waves_fill_every_multiprocessor():
    def waves(block, tokens):
        return counts(block, "prefill", tokens, 1, "bf16", 10)[column("waves")]

    tile = 2 * 128 * 128
    assert waves(Linear(256, 128), 1) == waves(Linear(256, 1280), 128) == 10 * 256 * tile
    assert waves(Linear(256, 1281), 128) == waves(Linear(256, 128), 1281) == 20 * 256 * tile
    assert waves(FFN(128, 640), 128) == (10 * 128 + 10 * 640) * tile
    assert waves(Attention(1280, 8, 1, 128), 128) == (10 * 1280 + 10 * 1024) * tile
    assert waves(Head(128, 1280), 1) == 10 * 128 * tile
    assert waves(VitBlock(64, 4, 128), 1) == waves(NoOp(), 1) == 0


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0, 64, 200]))
def test_counts_along_contexts_are_those_of_each(first, span, window):
    block = Attention(64, 8, 2, 16, window=window)
    contexts = list(range(first, first + span + 1))
    each = np.stack([counts(block, "decode", 5, n, "fp8", 4) for n in contexts])
    np.testing.assert_allclose(counts_along(block, "decode", 5, contexts, "fp8", 4), each)


def test_shapes_of_a_kind_share_a_fit():
    models = {model.group: model for model in h100_like.table().fits()}
    assert [(g.kind, g.phase) for g in models] == [
        ("attention", "decode"),
        ("attention", "prefill"),
        ("ffn", "prefill"),
    ]
    ffn = models[GROUP]
    assert (ffn.rows, ffn.terms) == (210, ("fixed", "bytes", "tiles128"))
    fixed, traffic, flops = (ffn.coefficients[column(name)] for name in ffn.terms)
    assert (fixed, 1 / traffic, 1 / flops) == pytest.approx((25e-6, 3e12, 8e14), rel=1e-6)
