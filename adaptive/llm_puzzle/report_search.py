"""The parts of a Puzzle run's page that say how far its predictions were to be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from adaptive.core.report import Report, predicted_measured_plot
from adaptive.core.run import StageContext
from adaptive.llm_puzzle.fusion import STAGE


def rounds(page: Report, ctx: StageContext, count: int) -> None:
    """A row for each round: how fast, and how far from the parent as predicted and measured."""
    if count == 1:
        return
    rows = []
    for index in range(1, count):
        step = _read(ctx, f"search_{index}", "step.json")
        rows.append(
            (
                step["speedup"],
                step["kl.predicted"],
                _read(ctx, f"scores_{index}", "child.json")["kl"],
            )
        )
    found, checked = (
        _read(ctx, "search", "search.json"),
        _read(ctx, "additivity", "additivity.json"),
    )
    speedup = found["reference"]["latency"] / found["allocation"]["cost"]["latency"]
    rows.append((speedup, checked["predicted_kl"], checked["measured_kl"]))
    page.section("Rounds").table(
        [
            {
                "round": str(index),
                "predicted speed-up": f"{speedup:.2f}x",
                "predicted KL": f"{predicted:.4f}",
                "measured KL": f"{measured:.4f}",
            }
            for index, (speedup, predicted, measured) in enumerate(rows, 1)
        ],
        "Each round but the first goes by scores taken again around the child of the one before; "
        "its prediction starts from that child's measured KL. Nats a token on the tokens that "
        "scores are taken on, before the last distillation.",
    )


def solutions(page: Report, ctx: StageContext) -> None:
    """A row for each diverse solution, if there were to be several."""
    found = _read(ctx, "search", "solutions.json")
    if not found["solutions"]:
        return
    page.section("Solutions").table(
        [
            {
                "solution": f"{i + 1}{' (kept)' if i == found['kept'] else ''}",
                "predicted loss": f"{row['loss.predicted']:.4f}",
                "measured KL": f"{row['kl']:.4f}",
                "predicted latency": f"{1e3 * row['latency.predicted']:.3f} ms",
                "measured latency": _milliseconds(row["latency.measured"]),
                "within the budget": "yes" if row["met"] else "no",
                "layers as in an earlier one": "-" if row["shared"] is None else str(row["shared"]),
            }
            for i, row in enumerate(found["solutions"])
        ],
        "Solutions that differ, put together from the library; KL from the parent on the "
        "validation rows, before the last distillation. The best within the budget is kept.",
    )
    if found["shortage"]:
        page.text(f"There are no more: {found['shortage']}.")


def coupled(page: Report, ctx: StageContext, tokens: int) -> None:
    """What training pairs together brought, if there were to be any: by layer, and to the child."""
    if not tokens:
        return
    records = _read(ctx, "coupled", "coupled.json")
    kl = _read(ctx, "coupled_kl", "coupled_kl.json")
    chosen = _read(ctx, "search", "search.json")["allocation"]["labels"]
    page.section("Coupled distillation").table(
        [
            {
                "child put together from": name,
                "KL from the parent": f"{kl[key]:.4f}",
            }
            for name, key in (
                ("halves trained apart", "coupled.kl.decoupled"),
                ("pairs trained together", "coupled.kl"),
            )
        ],
        "The same architecture on the validation rows, before the last distillation.",
    )
    if records:
        page.table(
            [
                {
                    "layer": str(record["layer"]),
                    "pair": record["option"],
                    "halves trained apart": f"{record['loss_start']:.4f}",
                    "trained together": f"{record['loss']:.4f}",
                    "in the child": "yes" if chosen[record["layer"]] == record["option"] else "",
                }
                for record in records
            ],
            "Normalised error of the block's output on held-out rows.",
        )


def additivity(page: Report, ctx: StageContext) -> None:
    """The child's KL, and that of pairs of its layers, against the sums of their scores."""
    checked: Mapping[str, Any] = _read(ctx, "additivity", "additivity.json")
    predicted, measured = checked["predicted_kl"], checked["measured_kl"]
    page.section("Additivity").table(
        [
            {
                "predicted KL": f"{predicted:.4f}",
                "measured KL": f"{measured:.4f}",
                "measured / predicted": f"{measured / predicted:.2f}" if predicted > 0 else "-",
            }
        ],
        "A search adds up what each replacement costs by itself. The child's KL from the parent on "
        "the same tokens, before the last distillation, against that sum.",
    )
    pairs = [pair for pair in checked["pairs"] if pair["predicted"] > 0 and pair["measured"] > 0]
    if pairs:
        points = [{"name": "layers {} and {}".format(*pair["layers"]), **pair} for pair in pairs]
        page.figure(
            predicted_measured_plot(points, unit="nats/token"),
            "KL of two of the child's layers replaced in the parent at once, against the sum of "
            "the two by themselves. Above the line, errors reinforce each other.",
        )


def ffn_fusion(page: Report, ctx: StageContext) -> None:
    """The child before and after its FFNs were merged, if that was asked for."""
    if STAGE not in ctx.needs:
        return
    found = _read(ctx, STAGE, "fusion.json")
    page.section("FFN fusion")
    if found["runs"]:
        kind = {"bound": "lower bound of the latency"}.get(
            found["latency.kind"], f"{found['latency.kind']} latency"
        )
        page.table(
            [
                {
                    "child": name,
                    "KL": f"{found['kl'][when]:.4f}",
                    kind: _milliseconds(found["latency"][when]),
                }
                for name, when in (("as found", "before"), ("fused", "after"))
            ],
            f"FFNs of layers {'; '.join(', '.join(map(str, run)) for run in found['runs'])} read "
            "the same input and are one wider FFN in the fused child. KL from the parent on the "
            "validation rows, before the last distillation; what is said above of layers and "
            "additivity is of the child as found.",
        )
    page.text(
        "The fused child is kept."
        if found["kept"]
        else f"The child stays as it was found: {found['reason']}."
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3f} ms"


def _read(ctx: StageContext, stage: str, name: str) -> Any:
    return json.loads((ctx.input(stage) / name).read_text(encoding="utf-8"))
