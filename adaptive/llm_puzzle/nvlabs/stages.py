"""A run over a released library: import, search, report. No weights are loaded, nothing is timed.

``python -m adaptive.run +exp=puzzle_70b library=nvlabs library.path=DIR budget.memory=80000MiB
budget.throughput=6000``

Latency, memory and parameters are sums over the blocks as the library measured them, at its own
batch and length; throughput is batch x length / latency. Embedding, head and activations are in
none of the sums, as in the demonstration of NVlabs/puzzle. The summary has

- ``nvlabs.kl_sum``, ``nvlabs.memory_mib``, ``nvlabs.runtime_ms``, ``nvlabs.throughput`` (tokens/s)
  and ``nvlabs.params`` of the optimum, and the last four of ``nvlabs.parent.*``;
- ``nvlabs.layers``, ``nvlabs.variants`` (listed, all layers together), ``nvlabs.inversions`` (rungs
  of a ladder where a cheaper variant scores better), ``nvlabs.negative`` (variants whose LM loss is
  below the parent's), ``scores.not_finite`` (variants left out), ``nvlabs.covers``;
- ``search.*`` and ``speedup.predicted`` as in any search, ``baseline.NAME.kl_sum``;
- with ``arch``, ``arch.kl_sum``, ``arch.runtime_ms``, ``arch.memory_mib``, ``arch.throughput``,
  ``arch.missing`` and ``arch.approximate`` (layers not in the library, or only nearly),
  ``child.params`` of the published child. The optimum is then the one at that child's own latency
  and memory, whatever ``budget`` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from adaptive.core import Allocation, Budget, ChoiceProblem, Cost, Workload
from adaptive.core.blockwise.search import baseline, latency_frontier
from adaptive.core.blockwise.search import search as search_child
from adaptive.core.run import Stage, StageContext, atomic_write_json, say
from adaptive.llm_puzzle.arch import ARCHITECTURES, architecture_file
from adaptive.llm_puzzle.config import PuzzleConfig
from adaptive.llm_puzzle.fingerprint import fingerprint
from adaptive.llm_puzzle.modeling_puzzle import PuzzleModelConfig
from adaptive.llm_puzzle.nvlabs import report
from adaptive.llm_puzzle.nvlabs.compare import Matched, match
from adaptive.llm_puzzle.nvlabs.options import (
    MIB,
    Layers,
    ladders,
    load_options,
    names,
    options,
    problem,
    read_json,
)
from adaptive.llm_puzzle.nvlabs.read import library_files, read_released
from adaptive.llm_puzzle.score import inversions
from adaptive.llm_puzzle.shapes import stack

COVERS = "the blocks alone: no embedding, head or activations"


def stages(config: PuzzleConfig, parent: PuzzleModelConfig) -> list[Stage]:
    """The stages of a run over a released library.

    Args:
        config: with ``library.path``.
        parent: the shape that the library has to be of.
    """
    assert config.library.path is not None  # validated
    library = fingerprint(library_files(config.library.path))
    shape = stack(parent).key()
    arch = config.arch
    if arch is not None and arch not in ARCHITECTURES:
        arch = fingerprint([architecture_file(arch)])
    return [
        Stage(
            "import",
            partial(read, config=config, parent=parent),
            (),
            [library, shape, config.score.metric],
        ),
        Stage(
            "search",
            partial(search, config=config, parent=parent),
            ("import",),
            [shape, config.score.metric, config.budget, config.search, config.baselines, arch],
        ),
        Stage(
            "report",
            partial(report.write, config=config),
            ("import", "search"),
            [config],
        ),
    ]


def read(ctx: StageContext, config: PuzzleConfig, parent: PuzzleModelConfig) -> None:
    """Reads the library; keeps its numbers as ``problem.json`` and ``options.json``."""
    assert config.library.path is not None
    library, metric = read_released(config.library.path), config.score.metric
    layers = options(library, parent)
    # How the length splits into prompt and output is not told; throughput needs the sum alone.
    workload = Workload(library.batch, library.seq_len)
    priced = problem(layers, metric, workload)
    left_out = names(layers, lambda option: not math.isfinite(option.scores[metric]))
    if left_out:
        say(f"[import] left out, {metric} is not finite: {', '.join(left_out)}")
    odd = {
        "not_finite": left_out,
        "negative": names(layers, lambda option: option.scores["lm_loss"] < 0),
        "inversions": [
            f"layer {i.layer} {i.cheaper} below {i.dearer} by {i.difference:.4g}"
            for i in inversions(ladders(layers), metric)
        ],
    }
    measured = {
        "batch_size": library.batch,
        "sequence_length": library.seq_len,
        "gpu": library.gpu,
        "dtype": library.dtype,
    }
    atomic_write_json(ctx.dir / "problem.json", priced.to_json())
    atomic_write_json(ctx.dir / "options.json", [[o.to_json() for o in row] for row in layers])
    atomic_write_json(ctx.dir / "odd.json", odd)
    atomic_write_json(ctx.dir / "measured.json", measured)
    ctx.summary(
        {
            "nvlabs.layers": len(layers),
            "nvlabs.variants": sum(option.listed for layer in layers for option in layer),
            "nvlabs.inversions": len(odd["inversions"]),
            "nvlabs.negative": len(odd["negative"]),
            "scores.not_finite": len(left_out),
            "nvlabs.covers": COVERS,
            **_costs("nvlabs.parent", priced, priced.reference),
        }
    )


def search(ctx: StageContext, config: PuzzleConfig, parent: PuzzleModelConfig) -> None:
    """Finds the optimum and the baselines at the budget, or at a published child's own cost."""
    layers = load_options(ctx.input("import"))
    priced = ChoiceProblem.from_json(read_json(ctx.input("import") / "problem.json"))
    budget, words = Budget(config.budget.limits()), ""
    matched: Matched | None = None
    if config.arch is not None:
        matched = match(config.arch, layers, parent)
        priced = matched.problem(priced)
        layers = [layers[i] for i in matched.layers]
        budget = matched.budget(priced)
        own = priced.total(matched.choice_G)
        limits = Cost({name: own[name] for name in ("latency", "memory")})
        words = f"those of {config.arch}: {limits}"
    workload = priced.workload
    assert workload is not None
    found = search_child({workload.batch: priced}, budget, config.search)
    allocation = found.allocation
    choices: dict[str, Any] = {"optimum": allocation.choice.tolist()}
    reasons: dict[str, Any] = {}
    for name in config.baselines:
        choice, reason = baseline(name, found, ctx.seed)
        choices[name] = None if choice is None else choice.tolist()
        reasons[f"baseline.{name}.kl_sum"] = _sum(layers, choices[name], "kl")
        if choice is None:
            reasons[f"baseline.{name}.reason"] = reason
    if matched is not None:
        choices["published"] = matched.choice_G.tolist()
    atomic_write_json(
        ctx.dir / "search.json",
        {
            "budget": words or str(budget),
            "allocation": allocation.to_json(),
            "choices": choices,
            "layers": list(range(len(layers))) if matched is None else matched.layers,
            "approximate": [] if matched is None else matched.approximate,
            "missing": [] if matched is None else matched.missing,
        },
    )
    atomic_write_json(ctx.dir / "problem.json", priced.to_json())
    rows = latency_frontier(priced, config.search.frontier, config.search, budget)
    atomic_write_json(ctx.dir / "frontier.json", rows)
    latency, reference = allocation.cost["latency"], priced.reference_cost["latency"]
    ctx.summary(
        {
            "nvlabs.kl_sum": _sum(layers, choices["optimum"], "kl"),
            "nvlabs.lm_loss_sum": _sum(layers, choices["optimum"], "lm_loss"),
            **_costs("nvlabs", priced, allocation.choice),
            "search.gap": allocation.gap,
            "search.seconds": allocation.seconds,
            "search.status": allocation.status,
            "search.solver": allocation.solver,
            "search.batch": found.batch,
            "search.budget": words or str(budget),
            "speedup.predicted": reference / latency if latency else None,
            "child.score.predicted": allocation.loss,
            **reasons,
        }
    )
    if matched is not None:
        ctx.summary(_published(matched, layers, priced, allocation))


def _published(
    matched: Matched, layers: Layers, priced: ChoiceProblem, allocation: Allocation
) -> dict[str, Any]:
    """The published child's part of the summary."""
    if matched.missing:
        say(f"[search] not in the library, left out on both sides: {', '.join(matched.missing)}")
    excess = priced.total_loss(matched.choice_G) - allocation.loss
    return {
        "child.params": stack(matched.config).params(),
        "arch.kl_sum": _sum(layers, matched.choice_G, "kl"),
        **_costs("arch", priced, matched.choice_G),
        "arch.loss_over_optimum": excess if math.isfinite(excess) else None,
        "arch.missing": len(matched.missing),
        "arch.approximate": len(matched.approximate),
        **({"arch.missing_layers": ", ".join(matched.missing)} if matched.missing else {}),
    }


def _costs(prefix: str, priced: ChoiceProblem, choice: np.ndarray) -> dict[str, Any]:
    """What a choice costs, in the library's units."""
    total = priced.total(choice)
    assert priced.workload is not None
    latency = total["latency"]
    return {
        f"{prefix}.memory_mib": total["memory"] / MIB,
        f"{prefix}.runtime_ms": 1e3 * latency,
        f"{prefix}.throughput": priced.workload.tokens / latency if latency else None,
        f"{prefix}.params": int(total["params"]),
    }


def _sum(layers: Layers, choice: Sequence[int] | np.ndarray | None, metric: str) -> float | None:
    """Summed score of a choice; None where there is none, or a score is not finite."""
    if choice is None:
        return None
    total = math.fsum(layer[k].scores[metric] for layer, k in zip(layers, choice, strict=True))
    return total if math.isfinite(total) else None
