"""The stage ``sweep``: multiply-accumulates and measured images a second of every budget."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from adaptive.core.hardware import clock_for
from adaptive.core.run import StageContext, atomic_write_json
from adaptive.quadformer.config import QuadformerDemoConfig
from adaptive.quadformer.demo.look import demo_budgets, demo_model
from adaptive.quadformer.models import Normalise


def sweep(config: QuadformerDemoConfig, context: StageContext) -> None:
    """Times all budgets in turns, the prior included, and the full grid, which needs none."""
    trained = demo_model(config)
    model: Any = trained.model.to(context.device)
    budgets, size = demo_budgets(config, model), trained.config.size
    image_BCHW = torch.rand(config.batch, 3, size, size, device=context.device)
    image_BCHW = Normalise.of(model, context.device)(image_BCHW)
    on_gpu = context.device.startswith("cuda")
    options: dict[str, Any] = {} if on_gpu else {"threads": config.threads, "warmup": 1}
    clock = clock_for(context.device, **options)
    timings = clock.compare(
        {str(n): partial(model, image_BCHW, num_tokens=n) for n in budgets},
        None if on_gpu else 1,
        max_seconds=config.seconds,
        track=context.track,
        desc=f"{len(budgets)} budgets",
    )
    full = str(budgets[-1])
    rows = [
        {
            "tokens": n,
            "gmacs": model.gmacs(n),
            "images_per_second": config.batch / timings[str(n)].median,
            "speedup": timings.ratio(full, str(n)).median,
        }
        for n in budgets
    ]
    atomic_write_json(context.dir / "sweep.json", rows)
    for key in ("gmacs", "images_per_second", "speedup"):
        context.summary({f"{key}.{row['tokens']}": row[key] for row in rows})
