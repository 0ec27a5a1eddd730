"""A model fitted to measured times: fixed + bytes + FLOPs, with the steps and the knee of hardware.

One fit covers the rows of one kind of block, phase, dtype and clock mode, whatever their shapes:

    seconds ~ fixed + traffic / bandwidth + FLOPs / rate + ...,   all terms >= 0

Coefficients are of least squares on *relative* errors. Which terms enter is decided by the
leave-one-out error, term by term, so a term without evidence stays out. Choices for the FLOPs:

- as counted;
- in tiles: rows of tokens rounded up to 64 or 128; with the number of multiprocessors known also
  whole waves of 128 x 128 tiles;
- with a knee: the slower of traffic and arithmetic (a kernel that overlaps them), at a ridge.

Attention scores are a term of their own: they are counted dense, kernels run them causal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adaptive.core.cost.block import Block, activation_dtype, dtype_bytes
from adaptive.core.cost.shapes import FFN, Attention, Head, Linear

TILE = 128
RIDGES = (8, 16, 32, 64, 128, 256, 512, 1024)
"""FLOPs a byte at which a knee may lie: from a CPU core to an FP8 tensor core."""
COMMON = ("fixed", "bytes", "cache", "scores", "activations")
PRODUCTS: tuple[tuple[str, ...], ...] = (
    ("flops",),
    ("tiles64",),
    ("tiles128",),
    ("waves",),
    *((f"knee{ridge}", "flops") for ridge in RIDGES),
)
"""Choices for the matrix products; earlier ones are preferred."""
TERMS = (*COMMON, "flops", "tiles64", "tiles128", "waves", *(f"knee{r}" for r in RIDGES))
GAIN = 0.02
"""Relative fall of the leave-one-out error that a term, or another choice, must bring."""


class Group(NamedTuple):
    """What one fit covers."""

    kind: str
    phase: str
    dtype: str
    mode: str


@dataclass(frozen=True)
class Fit:
    """A fitted model of one group.

    Attributes:
        group: what it covers.
        coefficients: seconds per unit of each term, in the order of ``TERMS``; zero where a term is
            not used.
        error: mean absolute relative leave-one-out error of the model alone, without the
            correction at measured points that a table adds.
        rows: number of rows behind it.
    """

    group: Group
    coefficients: tuple[float, ...]
    error: float
    rows: int

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms in use."""
        return tuple(n for n, c in zip(TERMS, self.coefficients, strict=True) if c > 0)

    def seconds(self, counts: np.ndarray) -> np.ndarray:
        """Modelled times [...] of counts [..., term]."""
        return counts @ np.array(self.coefficients)

    def describe(self) -> str:
        """The model in words: microseconds, GB/s, TFLOP/s, and its error."""
        words = " + ".join(
            _words(n, c) for n, c in zip(TERMS, self.coefficients, strict=True) if c > 0
        )
        return (
            f"{' '.join(self.group)}: {words}; leave-one-out error {self.error:.1%} "
            f"over {self.rows} rows"
        )


def _words(name: str, coefficient: float) -> str:
    rate = 1 / coefficient
    if name == "fixed":
        return f"{coefficient * 1e6:.3g} us"
    if name.startswith("knee"):
        ridge = int(name.removeprefix("knee"))
        return (
            f"the slower of bytes at {rate / 1e9:.4g} GB/s and flops at "
            f"{rate * ridge / 1e12:.3g} TFLOP/s"
        )
    if name in ("bytes", "cache", "activations"):
        return f"{name} at {rate / 1e9:.4g} GB/s"
    return f"{name} at {rate / 1e12:.3g} TFLOP/s"


def counts(
    block: Block, phase: str, batch: int, length: int, dtype: str, multiprocessors: int = 0
) -> np.ndarray:
    """Amount of each of ``TERMS``, [term]: 1, bytes and FLOPs of one call.

    Args:
        block: what runs.
        phase: "prefill" or "decode".
        batch: sequences.
        length: tokens of the prompt, or cached context of a decode step.
        dtype: of the weights.
        multiprocessors: of the device; 0 where unknown (then there are no waves).
    """
    narrow = activation_dtype(dtype)
    if phase == "prefill":
        tokens = block.computed_tokens(batch, length)
        flops, cache = block.prefill_flops(batch, length), 0.0
        traffic = block.prefill_bytes(batch, length, dtype)
    else:
        tokens, flops = batch, block.decode_flops(batch, length)
        cache = block.cache_bytes(batch, length + 1, narrow)
        traffic = block.decode_bytes(batch, length, dtype)
    # What goes beyond a fixed amount a token is attention scores. A convolution's FLOPs, which
    # count output positions, are below it.
    scores = max(flops - tokens * block.token_flops(), 0)
    products = flops - scores
    each = products / max(tokens, 1)
    values = {
        "fixed": 1.0,
        "bytes": traffic - cache,
        "cache": cache,
        "scores": scores,
        "activations": tokens * block.inner_width() * dtype_bytes(narrow),
        "flops": products,
        "tiles64": each * _ceil(tokens, 64),
        "tiles128": each * _ceil(tokens, TILE),
        "waves": _waves(block, tokens, multiprocessors),
        **{f"knee{ridge}": max(traffic - cache, products / ridge) for ridge in RIDGES},
    }
    return np.array([values[name] for name in TERMS], dtype=float)


def counts_along(
    block: Block,
    phase: str,
    batch: int,
    lengths: Sequence[int],
    dtype: str,
    multiprocessors: int = 0,
) -> np.ndarray:
    """``counts`` at ascending lengths, [length, term]; several must be of decode steps."""
    first, last = lengths[0], lengths[-1]
    if len(lengths) == 1:
        knots = [first]
    else:
        # Counts of a decode step are affine in the context between kinks (see ``cost.block``).
        knots = sorted({first, last} | {k for k in block.kinks() if first < k < last})
    found_KT = np.stack([counts(block, phase, batch, n, dtype, multiprocessors) for n in knots])
    return np.stack([np.interp(lengths, knots, column) for column in found_KT.T], axis=1)


def _ceil(n: int, step: int) -> int:
    return -(-n // step) * step


def _waves(block: Block, tokens: int, multiprocessors: int) -> float:
    """FLOPs of the block's products where every multiprocessor runs a tile in every wave."""
    if not multiprocessors:
        return 0.0
    match block:
        case FFN():
            up = (1 + block.gated) * block.intermediate
            products = [(block.hidden, up), (block.intermediate, block.hidden)]
        case Attention():
            products = [
                (block.hidden, block.q_width + 2 * block.kv_width),
                (block.q_width, block.hidden),
            ]
        case Linear():
            products = [(block.inputs, block.outputs)]
        case Head():
            products = [(block.hidden, block.vocab)]
        case _:
            return 0.0
    rows = math.ceil(tokens / TILE)
    tiles = [(inner, rows * math.ceil(outer / TILE)) for inner, outer in products]
    return 2.0 * TILE**2 * sum(inner * _ceil(n, multiprocessors) for inner, n in tiles)


@dataclass(frozen=True)
class Samples:
    """Rows of one group: keys, ``counts`` [row, term] and times [row]."""

    keys: tuple[Hashable, ...]
    counts_RT: np.ndarray
    seconds_R: np.ndarray


def fit(
    group: Group, counts_RT: np.ndarray, seconds_R: np.ndarray, terms: Sequence[str] | None = None
) -> Fit | None:
    """The model of a group of rows, or None where nothing but a fixed time can be seen in them.

    A model has at most half as many terms as there are rows, so it takes four rows.

    Args:
        group: what the rows have in common.
        counts_RT: ``counts`` of each row, [row, term].
        seconds_R: measured times, [row].
        terms: those allowed to enter; None selects them by leave-one-out error.
    """
    rows = len(seconds_R)
    if rows < 4:
        return None
    # Relative errors: each row is divided by its time, so that the model should answer 1.
    relative_RT = counts_RT / seconds_R[:, None]
    scale_T = np.sqrt((relative_RT**2).sum(0))
    usable = {name for name, scale in zip(TERMS, scale_T, strict=True) if scale > 0}
    unit_RT = relative_RT / np.where(scale_T > 0, scale_T, 1)
    if terms is None:
        chosen, error = _select(unit_RT, usable)
    else:
        chosen = [name for name in terms if name in usable]
        error = leave_one_out(unit_RT[:, [TERMS.index(name) for name in chosen]])
    columns = [TERMS.index(name) for name in chosen]
    solution = nnls(unit_RT[:, columns], np.ones(rows))
    if all(name == "fixed" for name, value in zip(chosen, solution, strict=True) if value > 0):
        return None
    coefficients = np.zeros(len(TERMS))
    coefficients[columns] = solution / scale_T[columns]
    return Fit(group, tuple(coefficients.tolist()), error, rows)


def _better(new: float, old: float) -> bool:
    # The constant ends the search among errors that are rounding alone.
    return new < (1 - GAIN) * old - 1e-6


def _select(unit_RT: np.ndarray, usable: set[str]) -> tuple[list[str], float]:
    """Forward selection of terms for each choice of products: the best terms and their error."""

    @functools.cache
    def error_of(names: frozenset[str]) -> float:
        return leave_one_out(unit_RT[:, sorted(TERMS.index(name) for name in names)])

    def grow(products: Sequence[str]) -> tuple[list[str], float]:
        chosen = ["fixed"]
        error = error_of(frozenset(chosen))
        left = [name for name in (*COMMON[1:], *products) if name in usable]
        while left and 2 * (len(chosen) + 1) <= len(unit_RT):
            best = min(left, key=lambda name: error_of(frozenset((*chosen, name))))
            if not _better(error_of(frozenset((*chosen, best))), error):
                break
            chosen.append(best)
            error = error_of(frozenset(chosen))
            left.remove(best)
        return chosen, error

    winner, least = grow(())
    for products in PRODUCTS:
        if products[0] in usable and _better((run := grow(products))[1], least):
            winner, least = run
    return winner, least


def nnls(matrix_RK: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """Least squares with no coefficient below zero, [K].

    Source: Lawson and Hanson, "Solving Least Squares Problems" (1974), chapter 23.
    """
    gram, moment = matrix_RK.T @ matrix_RK, matrix_RK.T @ target_R
    solution = np.zeros(len(moment))
    active = np.zeros(len(moment), dtype=bool)
    tolerance = 1e-12 * max(1.0, float(np.abs(moment).max(initial=0.0)))
    for _ in range(10 * len(moment)):  # ends sooner but for rounding
        gradient = np.where(active, -np.inf, moment - gram @ solution)
        if not len(gradient) or gradient.max() <= tolerance:
            break
        active[gradient.argmax()] = True
        while True:
            trial = np.zeros_like(solution)
            trial[active] = np.linalg.lstsq(matrix_RK[:, active], target_R, rcond=None)[0]
            negative = active & (trial <= 0)
            if not negative.any():
                break
            # As far towards the trial as no coefficient turns negative; those at zero leave.
            steps = solution[negative] / (solution[negative] - trial[negative] + 1e-300)
            solution = solution + steps.min() * (trial - solution)
            active &= ~(negative & (solution <= 1e-15))
            solution[~active] = 0
        solution = trial
    return solution


def leave_one_out(relative_RK: np.ndarray) -> float:
    """Mean absolute error of each row's answer, 1 being right, by the fit to all other rows.

    In closed form: the residual divided by one minus the leverage; which coefficients are zero is
    taken from the fit to all rows.
    """
    solution = nnls(relative_RK, np.ones(len(relative_RK)))
    used_RK = relative_RK[:, solution > 0]
    if not used_RK.shape[1]:
        return 1.0
    left_RK, singular_K, _ = np.linalg.svd(used_RK, full_matrices=False)
    leverage_R = (left_RK[:, singular_K > 1e-10 * singular_K[0]] ** 2).sum(1)
    residual_R = 1 - relative_RK @ solution
    return float(np.abs(residual_R / np.maximum(1 - leverage_R, 1e-9)).mean())
