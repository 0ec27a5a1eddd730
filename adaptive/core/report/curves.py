"""From the records of ``metrics.jsonl`` to curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def curves_of(
    records: Iterable[Mapping[str, Any]],
    fields: Iterable[str] | Mapping[str, str],
    *,
    by: str | None = None,
    x: str = "step",
) -> dict[str, list[tuple[float, float]]]:
    """Curves for :func:`adaptive.core.report.curves_plot`; what was never logged is left out.

    Args:
        records: of ``metrics.jsonl``, of the stages that are to be shown.
        fields: names of the values, or name to title of the curve.
        by: a label that tells curves apart, such as ``"tokens"``; its value takes the place of
            ``{}`` in the titles.
        x: name of the horizontal value.
    """
    titles = dict(fields) if isinstance(fields, Mapping) else {name: name for name in fields}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, title in titles.items():
        for record in records:
            if record.get(name) is not None and record.get(x) is not None:
                told = title if by is None else title.format(record.get(by))
                curves.setdefault(told, []).append((record[x], record[name]))
    return curves
