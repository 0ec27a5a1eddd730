"""The task with ``rehearse=true``: one stage that runs all the others on a random parent.

The inner run is a run directory of its own, ``artifacts/rehearsal/run``, and resumes like one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from adaptive.core import UserError, format_quantity
from adaptive.core.report import Report
from adaptive.core.run import (
    Experiment,
    Ranks,
    Stage,
    StageContext,
    atomic_write_json,
    say,
)
from adaptive.llm_puzzle.activations import free_memory
from adaptive.llm_puzzle.blocks import BlockOption
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.parent import parent_config
from adaptive.llm_puzzle.plan import planned_parent
from adaptive.llm_puzzle.rehearsal.forecast import Job, Taken, forecast, hours_on
from adaptive.llm_puzzle.rehearsal.parent import shallow, write_random
from adaptive.llm_puzzle.shapes import stack
from adaptive.llm_puzzle.space import search_space

MOST_LAYERS = 4
MODEL_SHARE = 0.15
"""Of the free memory that the random parent may take: a child is as large, variants come on top."""
TRAINED_BYTES = 18
"""A parameter in global distillation: weight, gradient and two moments in 32 bits, 16-bit copy."""


def stages(config: PuzzleConfig) -> list[Stage]:
    """One stage: nothing of a rehearsal is worth keeping without the rest."""
    planned_parent(config)  # refused before anything is written
    return [Stage("rehearsal", lambda ctx: rehearse(ctx, config), (), [config])]


def rehearse(ctx: StageContext, config: PuzzleConfig) -> None:
    """Runs every stage and writes the forecast.

    Of one round and one solution; coupled distillation is left out as well.

    Summary: the inner run's numbers of speed and accuracy of costs (``bld.*``, ``scoring.*``,
    ``costs.*``, ``latency.error``, ``search.gap``), ``rehearsal.layers``, ``rehearsal.gpu_bytes``
    and ``rehearsal.gpu_bytes.above_activations`` (most while building and scoring the library, with
    and without the activations that waited on the device), and of the full run
    ``full.params``, ``full.hours.N`` on N GPUs, ``full.library_bytes``, ``full.activation_bytes``.
    """
    full_model = planned_parent(config)
    dtype = getattr(torch, config.dtype)
    device = torch.device(ctx.device)
    parent = ctx.dir / "parent"
    if parent.is_dir():  # of an attempt that was cut short, with whatever memory there was
        layers = len(parent_config(parent).blocks)
    else:
        layers = _layers(config, full_model, device, dtype)
    model = shallow(full_model, layers)
    if not parent.is_dir():
        say(f"[rehearsal] a random parent of {layers} layers")
        write_random(model, dtype, parent, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what is free is asked again
    inner = _inner(config, model, str(parent), device)
    result = Experiment(inner).run(ctx.dir / "run", Ranks(device=ctx.device))

    rehearsed, full = (_job(c, m, dtype) for c, m in ((inner, model), (config, full_model)))
    taken = Taken.of(result.dir)
    rows = forecast(rehearsed, full, taken, config.rehearsal.gpus)
    atomic_write_json(ctx.dir / "forecast.json", rows)
    totals = {n: sum(row[hours_on(n)] for row in rows) for n in config.rehearsal.gpus}
    peak = max(taken[stage].gpu_bytes for stage in ("library", "scores"))
    held = 0
    if result.summary.get("library.activations") == "device":
        held = rehearsed.activation_bytes()
    prefixes = ("bld.", "scoring.", "costs.", "search.gap", "latency.error", "library.variants")
    summary: dict[str, Any] = {
        **{k: v for k, v in result.summary.items() if k.startswith(prefixes)},
        "rehearsal.layers": layers,
        "rehearsal.gpu_bytes": peak,
        "rehearsal.gpu_bytes.above_activations": max(0, peak - held) if peak else 0,
        "full.params": full.params,
        "full.library_bytes": full.library_bytes(),
        "full.activation_bytes": full.activation_bytes(),
        **{f"full.hours.{n}": hours for n, hours in totals.items()},
    }
    ctx.summary(summary)
    _page(ctx, config, rows, totals, summary)


def _layers(
    config: PuzzleConfig, full: PuzzleModelConfig, device: torch.device, dtype: torch.dtype
) -> int:
    """Depth of the random parent.

    Raises:
        UserError: not even one layer at full width fits.
    """
    depth = len(full.blocks)
    if config.rehearsal.layers is not None:
        return min(config.rehearsal.layers, depth)
    room = MODEL_SHARE * free_memory(device)
    for layers in range(min(MOST_LAYERS, depth), 0, -1):
        if stack(shallow(full, layers)).params() * dtype.itemsize <= room:
            return layers
    need = stack(shallow(full, 1)).params() * dtype.itemsize / MODEL_SHARE
    raise UserError(
        f"a rehearsal of this width wants {need / 2**30:.1f} GiB free on {device}, which has "
        f"{free_memory(device) / 2**30:.1f}: free some, take a larger device, set "
        "rehearsal.layers=1 to try it all the same, or rehearse a narrower shape"
    )


def _inner(
    config: PuzzleConfig, model: PuzzleModelConfig, parent: str, device: torch.device
) -> PuzzleConfig:
    """The configuration of the run on the random parent."""
    ask = config.rehearsal
    gkd = ask.gkd_tokens
    if gkd is None:
        fits = TRAINED_BYTES * stack(model).params() <= 0.6 * free_memory(device)
        gkd = 8192 if fits and config.gkd.tokens else 0
    long = dataclasses.replace(config.gkd.long, tokens=0)
    return dataclasses.replace(
        config,
        name=f"{config.name}_rehearsal",
        parent=parent,
        shape=None,
        plan_only=False,
        rehearse=False,
        data=dataclasses.replace(
            config.data,
            calibration="random",
            validation=None,
            tokens=ask.tokens,
            validation_tokens=min(config.data.validation_tokens, max(ask.score_tokens, 4096)),
        ),
        distill=dataclasses.replace(config.distill, tokens=ask.distill_tokens, coupled_tokens=0),
        score=dataclasses.replace(config.score, tokens=ask.score_tokens, path=None),
        gkd=dataclasses.replace(config.gkd, tokens=gkd, long=long),
        evaluate=dataclasses.replace(config.evaluate, positions=0, lm_eval=[]),
        search=dataclasses.replace(config.search, rounds=1, n_solutions=1),
        baselines=[],
        tracking=[],  # the rehearsal itself is shown
    )


def _job(config: PuzzleConfig, model: PuzzleModelConfig, dtype: torch.dtype) -> Job:
    blocks = [BlockOption.from_config(entry) for entry in model.blocks]
    return Job(config, model, search_space(config.space, blocks), dtype.itemsize)


def _page(
    ctx: StageContext,
    config: PuzzleConfig,
    rows: list[dict[str, Any]],
    totals: dict[int, float],
    summary: dict[str, Any],
) -> None:
    page = Report(f"Rehearsal: {config.name}", f"random weights at full width, on {ctx.device}")
    page.numbers(
        {
            **{_on(n): _hours(hours) for n, hours in totals.items()},
            "library on disk": format_quantity(summary["full.library_bytes"], "memory"),
            "activations": format_quantity(summary["full.activation_bytes"], "memory"),
        },
        {
            **{_on(n): "the full run" for n in totals},
            "library on disk": "of the full run",
            "activations": "of all calibration tokens",
        },
    )
    on_gpu = any(row["gpu_bytes"] for row in rows)
    page.section("Stages").table(
        [
            {
                "stage": row["stage"],
                "took": f"{row['seconds']:.1f} s",
                **({"GPU memory": _memory(row["gpu_bytes"])} if on_gpu else {}),
                "work": None
                if row["factor"] is None
                else f"x {row['repeats'] * row['factor']:,.0f}",
                **{_on(n): _hours(row[hours_on(n)]) for n in totals},
            }
            for row in rows
        ],
        "What the rehearsal took, how many times its work the full run has (nothing where that is "
        "not counted: the same time is taken), and what that comes to. Library, scores and global "
        "distillation are divided among GPUs.",
    )
    page.section("What was run").text(
        f"A parent of {summary['rehearsal.layers']} random layers at full width, on "
        f"{config.rehearsal.tokens:,} random tokens; its own page is "
        "[artifacts/rehearsal/run/report.html](./artifacts/rehearsal/run/report.html)."
    )
    page.provenance(config, ctx.run.path).save(ctx.dir / "report.html")


def _on(gpus: int) -> str:
    return hours_on(gpus).removeprefix("hours ")


def _memory(nbytes: float) -> str | None:
    return format_quantity(nbytes, "memory") if nbytes else None


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.1f} s"
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"
