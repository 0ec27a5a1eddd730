"""What a child's ``quality.json`` and the summary say about it.

``quality.json`` holds averages before (``.bld``) and after (``.gkd``) global distillation, and of
the child that is kept: ``positions``, a list of buckets (:class:`~.evaluate.Bucket`), and
``lm_eval``, scores of benchmarks. The summary has, of the kept child, ``child.ppl``,
``child.top5``, ``child.top10``, ``child.ppl.START-STOP`` and ``parent.ppl.START-STOP`` by position
in the row, and ``child.lm_eval.TASK.METRIC`` (``parent.``, ``baseline.NAME.``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from adaptive.core.run import StageContext
from adaptive.llm_puzzle.data import Rows
from adaptive.llm_puzzle.evaluate import Quality, benchmark, by_position
from adaptive.llm_puzzle.evaluate.quality import perplexity
from adaptive.llm_puzzle.modeling_puzzle import PuzzleForCausalLM
from adaptive.llm_puzzle.parent import Parent
from adaptive.llm_puzzle.settings import EvaluateConfig


def compared(before: Quality, after: Quality) -> dict[str, float]:
    """Averages before and after global distillation."""
    values = {}
    for name in ("loss", "kl", "top1", "top5", "top10", "ppl"):
        values |= {f"{name}.bld": getattr(before, name), f"{name}.gkd": getattr(after, name)}
    return values


def beyond(
    ctx: StageContext, config: EvaluateConfig, child: PuzzleForCausalLM, parent: Parent
) -> dict[str, Any]:
    """What is measured of the finished child alone: loss by position, and benchmarks.

    The parent's benchmarks are measured with the child's, by the stage ``child``.
    """
    result: dict[str, Any] = {"positions": [], "lm_eval": {}, "parent.lm_eval": {}}
    if config.positions:
        rows = Rows.load(ctx.input("contexts") / "positions.safetensors").to(parent.model.device)
        buckets = by_position(child, rows, config.batch_tokens, parent.model)
        result["positions"] = [asdict(bucket) for bucket in buckets]
    if config.lm_eval:
        result["lm_eval"] = benchmark(child, parent.tokenizer, config)
        if ctx.name == "child":
            result["parent.lm_eval"] = benchmark(parent.model, parent.tokenizer, config)
    return result


def child_summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """The child's part of the summary, with what was measured of the parent beside it."""
    flat = {f"child.{k}": v for k, v in result.items() if not isinstance(v, (list, dict))}
    kept = {f"child.{name}": result[f"{name}.gkd"] for name in ("ppl", "top5", "top10")}
    positions = {}
    for bucket in result["positions"]:
        label = f"{bucket['start']}-{bucket['stop'] - 1}"
        positions[f"child.ppl.{label}"] = perplexity(bucket["loss"])
        positions[f"parent.ppl.{label}"] = perplexity(bucket["parent_loss"])
    tasks = {f"child.lm_eval.{task}": score for task, score in result["lm_eval"].items()}
    tasks |= {f"parent.lm_eval.{task}": v for task, v in result["parent.lm_eval"].items()}
    gkd = {name: result[name] for name in ("gkd.tokens", "gkd.kept")}
    return {**flat, **kept, **positions, **tasks, **gkd}


def baseline_summary(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A baseline's part of the summary."""
    values = {"loss": "loss.gkd", "loss.bld": "loss.bld", "kl": "kl.gkd", "ppl": "ppl.gkd"}
    values |= {key: f"{key}.gkd" for key in ("top1", "top5", "top10")}
    tasks = {f"baseline.{name}.lm_eval.{task}": v for task, v in result["lm_eval"].items()}
    return {f"baseline.{name}.{key}": result[value] for key, value in values.items()} | tasks
