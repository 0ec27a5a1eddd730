"""The tables of a trained parent, for its report and for its model card.

``python -m adaptive.llm_puzzle.pretrain.card RESULT.json CARD.md`` puts them into a card.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- numbers -->", "<!-- /numbers -->"
"""What a model card puts around the tables that ``with_numbers`` fills in."""


def validation_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a validation set."""
    return [
        {
            "validation text": name,
            "loss (nats/token)": round(values["loss"], 3),
            "bits/byte": round(values["bits_per_byte"], 3),
            "tokens scored": f"{values['tokens']:,}",
        }
        for name, values in result["valid"].items()
    ]


def fact_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two columns: what it is, and where it was trained."""
    seconds, lost = result["seconds"]["training"], result["rounding"][result["dtype"]]
    facts = {
        "parameters": f"{result['parameters']:,}",
        "weights": f"{result['bytes'] / 1e6:.2f} MB, {result['dtype']}",
        "loss by rounding": f"{lost:+.1e} nats/token",
        "training": f"{result['tokens_seen'] / 1e6:,.0f} M tokens in {result['steps']:,} steps",
        "time": f"{seconds:.0f} s on {result['device']}, torch {result['versions']['torch']}",
        "date, commit": f"{result['date'][:10]}, {result['commit']}",
    }
    return [{"": name, "value": value} for name, value in facts.items()]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def with_numbers(card: str, result: Mapping[str, Any]) -> str:
    """A model card with its numbers replaced by those of ``result``."""
    head, _, rest = card.partition(BEGIN)
    tail = rest.partition(END)[2]
    tables = f"{markdown(validation_rows(result))}\n\n{markdown(fact_rows(result))}"
    return f"{head}{BEGIN}\n{tables}\n{END}{tail}"


def main(result: str, card: str) -> None:
    """Rewrites the numbers of the model card in the file ``card``."""
    path = Path(card)
    path.write_text(with_numbers(path.read_text(), json.loads(Path(result).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
