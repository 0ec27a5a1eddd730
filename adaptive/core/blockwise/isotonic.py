"""The nearest ladders and tables on which a cheaper option never scores better.

Local distillation is short and scores are taken on little data, so a narrower sub-block may score
better than a wider one by chance, and a solver that trusts it collects such accidents.

Shapes: N scores of one ladder, A x F scores of a table whose rows and columns are ladders.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

CYCLES = 20_000
"""Projections in turn, at most; tables of a dozen options settle within hundreds."""


def nondecreasing(values_N: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The nearest non-decreasing sequence in least squares, by pool-adjacent-violators.

    Neighbours in the wrong order share their mean, until none are (Ayer, Brunk, Ewing, Reid and
    Silverman 1955; in linear time as in Best and Chakravarti 1990). NaN stays where it is and the
    others are ordered without it.
    """
    finite_N = np.isfinite(values_N)
    pools: list[tuple[float, int]] = []  # mean and length
    for value in values_N[finite_N].tolist():
        mean, length = value, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, length = (other * count + mean * length) / (count + length), count + length
        pools.append((mean, length))
    result_N = values_N.copy()
    result_N[finite_N] = np.repeat([mean for mean, _ in pools], [n for _, n in pools])
    return result_N


def monotone(
    table_AF: Float[np.ndarray, "A F"], zero: tuple[int, int] | None = None
) -> Float[np.ndarray, "A F"]:
    """The nearest table that falls neither down a column nor along a row.

    Rows and columns are put in order in turns, each time with the correction that the last turn of
    the same kind took back (Dykstra and Robertson 1982; Boyle and Dykstra 1986). That converges to
    the least-squares projection onto the tables that are monotone both ways. It is stopped where
    a cycle changes nothing beyond 1e-10 of the largest score, and running maxima then remove what
    is left: the result is monotone exactly, and the nearest such table to that precision.

    Args:
        table_AF: NaN marks options that are not available; they stay, and bind no others.
        zero: the entry that is 0 by definition and stays so: what is cheaper is then at least 0 and
            what is dearer at most 0.
    """
    if _is_monotone(table_AF):
        return table_AF.copy()
    low_AF, high_AF = np.full(table_AF.shape, -np.inf), np.full(table_AF.shape, np.inf)
    if zero is not None:
        low_AF[zero[0] :, zero[1] :] = 0.0
        high_AF[: zero[0] + 1, : zero[1] + 1] = 0.0
    turns: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x_AF: np.stack([nondecreasing(row_F) for row_F in x_AF]),
        lambda x_AF: np.stack([nondecreasing(column_A) for column_A in x_AF.T], axis=1),
        lambda x_AF: np.clip(x_AF, low_AF, high_AF),
    ]
    result_AF = table_AF
    taken_back = [np.zeros_like(table_AF) for _ in turns]
    still = 1e-10 * np.nanmax(np.abs(table_AF))
    for _ in range(CYCLES):
        moved = 0.0
        for i, turn in enumerate(turns):
            before_AF = result_AF + taken_back[i]
            result_AF = turn(before_AF)
            # The corrections, and not the table, stand still at the end (Birgin and Raydan 2005).
            correction_AF = before_AF - result_AF
            moved = max(moved, float(np.nanmax(np.abs(correction_AF - taken_back[i]))))
            taken_back[i] = correction_AF
        if moved <= still:
            break
    result_AF = np.clip(result_AF, low_AF, high_AF)
    for axis in (0, 1):
        running_AF = np.fmax.accumulate(result_AF, axis=axis)
        result_AF = np.where(np.isnan(table_AF), np.nan, running_AF)
    return result_AF


def _is_monotone(table_AF: np.ndarray) -> bool:
    lines = [*table_AF, *table_AF.T]
    return all((np.diff(line[np.isfinite(line)]) >= 0).all() for line in lines)
